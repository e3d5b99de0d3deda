// Package federation joins the regions: gossip among all servers of all of them,
// a directory of who is where, the decision where a call goes, and questions to
// many regions at once that say what each region's part is worth. Package
// federation/summary keeps copies of what the others have.
//
// A region is known by the id of its cell, pinned when it is first seen; another
// cell under its name is quarantined until an operator accepts it (identity.go).
//
// Gossip orders candidates; it refuses no server of a region's cell. Only calls and probes of our own
// make a region fail fast, and they make it live again: a region whose calls
// fail answers at once from then on and is probed in the background until it
// answers. Ages are by this agent's clock, from when it asked.
//
// Gossip.Run, Directory.Run and FollowEvents have the package's goroutines;
// everything else
// may be called by any number of them. The package writes no Raft.
package federation
