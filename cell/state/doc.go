// Package state is a cell's tables: go-memdb for the small ones, a table of hot
// rows (allocs.go) for allocations, and one transaction over both.
//
// A Store has one writer, the FSM, whose changes are functions of the command
// alone: no clock, no randomness, no environment, no map order. Readers take a
// Snapshot, which costs nothing, never changes and never blocks the writer or
// is blocked by it. A read given a Watch adds what to wait on, and is woken by
// the commit that changes what it read, and by few others.
//
// What is read is shared: treat it as immutable. The package knows no Raft, no
// RPC and no clock; times arrive in commands.
package state
