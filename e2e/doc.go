// Package e2e tests the real binary: agents as processes, each region in a
// network namespace of its own that the test made, cut apart with iptables and
// driven with the official Go client. It needs root, Linux and what
// scripts/setup installs; `make e2e` runs it. Everything it starts it ends, by
// process id, and its traffic stays in its namespaces.
//
// The benchmarks of the binary are here too; `make bench` runs them, on loopback,
// and they need neither.
package e2e
