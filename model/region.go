package model

import "time"

// Freshness says what a region's part of an answer is worth.
type Freshness string

const (
	// Live rows were asked for, for this answer, from the region's leader.
	Live Freshness = "live"
	// Stale rows are older: Age says how much, Index of which state.
	Stale Freshness = "stale"
	// Unreachable regions answered nothing; Age is since their last contact.
	Unreachable Freshness = "unreachable"
)

// RegionAnswer is one region's part in an answer over several regions.
type RegionAnswer struct {
	Region    string
	Freshness Freshness
	// Age is by the asking agent's clock; negative when there never was a
	// contact.
	Age   time.Duration
	Index uint64
	// Error says why a region is not live, for people.
	Error string `json:",omitempty"`
}

// Member is a server in the gossip pool.
type Member struct {
	Name        string
	Addr        string
	Port        uint16
	Tags        map[string]string
	Status      string
	ProtocolMin uint8
	ProtocolMax uint8
	ProtocolCur uint8
	DelegateMin uint8
	DelegateMax uint8
	DelegateCur uint8
}

// RegionStatus is what this agent's directory holds of a region.
type RegionStatus struct {
	Name string
	// Servers are RPC addresses, nearest healthy first.
	Servers []string
	// Healthy is false when calls to it fail at once; LastContact is then
	// how long ago one succeeded, negative when none ever did.
	Healthy     bool
	LastContact time.Duration
	// CellID is the cell that the region is known as, "" when that is not
	// known.
	CellID string
	// Quarantined are other cells that claim the region; nothing is sent to
	// them until an operator accepts one.
	Quarantined []CellClaim `json:",omitempty"`
	// Refused are servers that gossip as the region's and that are not used, since
	// they speak no protocol of ours.
	Refused []RefusedServer `json:",omitempty"`
}

// RefusedServer is a server that is not used.
type RefusedServer struct {
	Name, Region string
	// RPC is its address, Build its version.
	RPC, Build string
	// Alive is what gossip believes.
	Alive bool
	Cause string
}

// CellClaim is a cell that claims a region which it is not known as.
type CellClaim struct {
	CellID string
	// Servers are the RPC addresses of those that say they are of it.
	Servers []string
	// KnownAs is the region that the cell is known as, when that is another: the
	// region was renamed, or its servers name it differently.
	KnownAs string `json:",omitempty"`
}
