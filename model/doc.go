// Package model holds Atoll's domain types: one type for each thing, used as
// it is at every surface (HTTP JSON, RPC, Raft commands, state tables).
//
// Field names are the wire names, and they are Nomad's, so that its clients
// read them. Values read from the state store are shared and must be treated
// as immutable: Copy before changing. A type whose defaults are not zero
// values sets them before it is decoded ([Unset] marks "not given" where the
// default depends on something that is known only later) and
// [Job.Canonicalize] resolves them, so that no later code meets a pointer or a
// mark for an absent number.
//
// The package imports nothing of Atoll and has no I/O, no clock and no
// randomness; whatever needs one of those takes it as an argument.
package model
