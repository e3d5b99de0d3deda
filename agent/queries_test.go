package agent

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"testing"

	"atoll/internal/freeport"
)

// A thousand queries and streams that wait cost an agent nothing once their
// clients are gone, whether they were answered or not.
func TestQueriesLeaveNothingWhenTheirClientsGo(t *testing.T) {
	c := onLoopback(t, t.TempDir())
	c.Ports.RPC = freeport.Port(t)
	c.Server.Enabled, c.Server.BootstrapExpect = true, 1
	r := start(t, c)
	await(t, "the agent", r.ready)
	for i := range 40 {
		if err := r.post(fmt.Sprintf(`{"Job":{"ID":"j%d","Datacenters":["nowhere"],"TaskGroups":[{"Name":"g","Tasks":[{"Name":"t","Driver":"raw_exec","Config":{"command":"/bin/true"}}]}]}}`, i)); err != nil {
			t.Fatal(err)
		}
	}
	var evals []struct{ Status string }
	await(t, "the evaluations' end", func() error {
		if err := r.get("/v1/evaluations?filter=Status==pending", &evals); err != nil || len(evals) > 0 {
			return fmt.Errorf("%d are pending, %v", len(evals), err)
		}
		return nil
	})
	base := runtime.NumGoroutine()
	paths := []string{"/v1/jobs?index=%d", "/v1/job/j0?index=%d", "/v1/allocations?index=%d", "/v1/event/stream?index=%d"}
	conns := make([]net.Conn, 1000)
	for i := range conns {
		conn, err := net.Dial("tcp", r.HTTPAddr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := fmt.Fprintf(conn, "GET "+paths[i%len(paths)]+" HTTP/1.1\r\nHost: x\r\n\r\n", 1<<40); err != nil {
			t.Fatal(err)
		}
		conns[i] = conn
	}
	goroutines := func(what string, ok func(n int) bool) {
		t.Helper()
		await(t, what, func() error {
			if n := runtime.NumGoroutine(); !ok(n) {
				return fmt.Errorf("%d goroutines; %d before", n, base)
			}
			return nil
		})
	}
	goroutines("all to be waited for", func(n int) bool { return n >= base+len(conns) })
	// A stream has its header at once.
	if resp, err := http.ReadResponse(bufio.NewReader(conns[3]), nil); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("a stream: %+v, %v", resp, err)
	}
	for _, conn := range conns {
		_ = conn.Close()
	}
	goroutines("the end of what waited", func(n int) bool { return n <= base+10 })
}
