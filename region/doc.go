// Package region is one server of a region: the RPC services over its cell, and
// the control loops that run while it leads.
//
// The services (jobs.go, allocs.go, nodes.go, status.go) are small structs with
// named dependencies, bound to the method table; a read answers from the local
// state, a write is a command through the cell. The loops are packages of their
// own: they meet in the state and never import each other.
//
//	broker     hands evaluations to workers
//	worker     proposes plans for them
//	planner    checks and commits plans, one after another
//	unblock    wakes evaluations when room was made
//	heartbeat  declares nodes down
//	autopilot  watches the cell's servers, promotes stable ones, drops dead ones
//	deploy     ends, fails, promotes and reverts deployments
//	drain      empties nodes
//
// summary.go tells the other regions what changed in this one, and aggregate.go
// answers for all regions from what they told.
//
// leader.go makes fresh loops for each term of leadership, in one group that ends
// with it: nothing is switched on and off by hand. membership.go starts the cell,
// and keeps its members in step with what gossip says.
package region
