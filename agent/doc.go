// Package agent is one process: it makes a server, a node and the HTTP surface of
// a configuration, starts them, and stops them in order. It is the only package
// that knows all of them.
//
// New listens and opens data; Run starts the goroutines, which belong to it, and
// returns when they have ended. An agent that cannot be made leaves nothing
// open.
package agent
