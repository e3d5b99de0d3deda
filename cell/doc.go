// Package cell is one Raft cell as a replicated store: hashicorp/raft over a log
// and snapshots on disk, and an FSM that turns each command into one
// transaction of cell/state. Apply is the only way to write.
//
// A command is one byte that names it and a msgpack body. The table in
// commands.go leads from the byte to the function that applies it; such a
// function depends on the state and the body alone, so that every server comes
// to the same state. A command from a newer version is refused before it is
// stored: the server stands still rather than diverge.
//
// The disk is not believed. What Raft keeps there has sums, every byte is checked
// before it is used, and a member whose disk fails or whose data are damaged is
// taken out and brought back by Run: datadir.go says what lies in the directory
// and checks it, logstore.go and snapstore.go stand between Raft and its files,
// member.go is one run of Raft, keeper.go when it ends and the next begins.
//
// Raft knows its peers by address alone; stream.go makes each connection name the
// server that it is for, so that one which lost its data does not answer for what
// it was.
//
// Cell's methods are safe for concurrent use. It knows no RPC: it is given a
// stream layer. It knows no region but its own, and makes no decisions about
// membership but those it is asked for.
package cell
