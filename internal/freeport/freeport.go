// Package freeport gives tests addresses that they listen on later, or again
// after a stop.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Ports are taken from below those that systems give to outgoing connections
// (32768 and up on Linux), which would take a free one meanwhile, and from below
// those that tasks are given.
const first, last = 12000, 19999

// Addr returns a loopback address with such a port.
func Addr(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", Port(t))
}

// Port returns a port that is free on TCP and UDP of the loopback address.
func Port(t testing.TB) int {
	t.Helper()
	for range 100 {
		port := first + rand.IntN(last-first+1)
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		p, err := net.ListenPacket("udp", addr)
		_ = l.Close()
		if err != nil {
			continue
		}
		_ = p.Close()
		return port
	}
	t.Fatalf("no port from %d to %d is free", first, last)
	return 0
}
