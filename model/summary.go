package model

import (
	"slices"
	"time"
)

// What a region tells the others of its jobs, nodes and deployments: small rows,
// of which each region holds those of all others. Detail stays in its region. On
// the wire a field that says nothing takes no place.

// RowKey is a row's place in the order of its table. Nodes have no namespace.
type RowKey struct{ Namespace, ID string }

// JobRow is a job in a summary: in answers over many regions, one region's share
// of it.
type JobRow struct {
	// Region is set by whoever took the row over, not by the region itself.
	Region            string   `codec:",omitempty"`
	Namespace         string   `codec:",omitempty"`
	ID                string   `codec:",omitempty"`
	Name              string   `codec:",omitempty"`
	ParentID          string   `codec:",omitempty"`
	Type              string   `codec:",omitempty"`
	Status            string   `codec:",omitempty"`
	StatusDescription string   `codec:",omitempty"`
	Priority          int      `codec:",omitempty"`
	Stop              bool     `codec:",omitempty"`
	Multiregion       bool     `codec:",omitempty"`
	Periodic          bool     `codec:",omitempty"`
	ParameterizedJob  bool     `codec:",omitempty"`
	Version           uint64   `codec:",omitempty"`
	SubmitTime        int64    `codec:",omitempty"`
	Datacenters       []string `codec:",omitempty"`
	// Groups are in the order of the job's own; Children is nil while there are
	// none.
	Groups   []GroupRow          `codec:",omitempty"`
	Children *JobChildrenSummary `codec:",omitempty"`
	// DeploymentID and DeploymentStatus are of the newest, "" without one.
	DeploymentID     string `codec:",omitempty"`
	DeploymentStatus string `codec:",omitempty"`
	CreateIndex      uint64 `codec:",omitempty"`
	ModifyIndex      uint64 `codec:",omitempty"`
	JobModifyIndex   uint64 `codec:",omitempty"`
}

// GroupRow counts a group's allocations by client status.
type GroupRow struct {
	Name     string `codec:",omitempty"`
	Count    int    `codec:",omitempty"` // wanted
	Queued   int    `codec:",omitempty"`
	Starting int    `codec:",omitempty"`
	Running  int    `codec:",omitempty"`
	Complete int    `codec:",omitempty"`
	Failed   int    `codec:",omitempty"`
	Lost     int    `codec:",omitempty"`
	Unknown  int    `codec:",omitempty"`
}

// NodeRow is a node in a summary.
type NodeRow struct {
	Region                string `codec:",omitempty"`
	ID                    string `codec:",omitempty"`
	Name                  string `codec:",omitempty"`
	Datacenter            string `codec:",omitempty"`
	NodeClass             string `codec:",omitempty"`
	NodePool              string `codec:",omitempty"`
	Address               string `codec:",omitempty"`
	Version               string `codec:",omitempty"`
	Status                string `codec:",omitempty"`
	StatusDescription     string `codec:",omitempty"`
	SchedulingEligibility string `codec:",omitempty"`
	Drain                 bool   `codec:",omitempty"`
	// Drivers are those that can be used.
	Drivers []string `codec:",omitempty"`
	// Total is what tasks may use, Used what they hold.
	Total, Used Usage
	CreateIndex uint64 `codec:",omitempty"`
	ModifyIndex uint64 `codec:",omitempty"`
}

// DeploymentRow is a deployment in a summary, with the sums of its groups.
type DeploymentRow struct {
	Region            string `codec:",omitempty"`
	Namespace         string `codec:",omitempty"`
	ID                string `codec:",omitempty"`
	JobID             string `codec:",omitempty"`
	JobVersion        uint64 `codec:",omitempty"`
	Status            string `codec:",omitempty"`
	StatusDescription string `codec:",omitempty"`
	IsMultiregion     bool   `codec:",omitempty"`
	DesiredTotal      int    `codec:",omitempty"`
	PlacedAllocs      int    `codec:",omitempty"`
	HealthyAllocs     int    `codec:",omitempty"`
	UnhealthyAllocs   int    `codec:",omitempty"`
	CreateIndex       uint64 `codec:",omitempty"`
	ModifyIndex       uint64 `codec:",omitempty"`
}

// Key is the row's place in its table.
func (r *JobRow) Key() RowKey        { return RowKey{r.Namespace, r.ID} }
func (r *NodeRow) Key() RowKey       { return RowKey{"", r.ID} }
func (r *DeploymentRow) Key() RowKey { return RowKey{r.Namespace, r.ID} }

// State is what rows are counted by.
func (r *JobRow) State() string        { return r.Status }
func (r *NodeRow) State() string       { return r.Status }
func (r *DeploymentRow) State() string { return r.Status }

// OfRegion says whose row it is.
func (r *JobRow) OfRegion(name string)        { r.Region = name }
func (r *NodeRow) OfRegion(name string)       { r.Region = name }
func (r *DeploymentRow) OfRegion(name string) { r.Region = name }

// Size is about how many bytes the row takes in memory.
func (r *JobRow) Size() int {
	n := 320 + len(r.Namespace) + len(r.ID) + len(r.Name) + len(r.ParentID) + len(r.Type) + len(r.Status) + len(r.StatusDescription) + len(r.DeploymentID) + len(r.DeploymentStatus)
	for _, dc := range r.Datacenters {
		n += 16 + len(dc)
	}
	for i := range r.Groups {
		n += 80 + len(r.Groups[i].Name)
	}
	return n
}

// Size is about how many bytes the row takes in memory.
func (r *NodeRow) Size() int {
	n := 320 + len(r.ID) + len(r.Name) + len(r.Datacenter) + len(r.NodeClass) + len(r.NodePool) + len(r.Address) + len(r.Version) + len(r.Status) +
		len(r.StatusDescription) + len(r.SchedulingEligibility)
	for _, d := range r.Drivers {
		n += 16 + len(d)
	}
	return n
}

// Size is about how many bytes the row takes in memory.
func (r *DeploymentRow) Size() int {
	return 240 + len(r.Namespace) + len(r.ID) + len(r.JobID) + len(r.Status) + len(r.StatusDescription)
}

// Row is the job's row, with its counts and its newest deployment, which may be
// nil.
func (j *Job) Row(summary *JobSummary, newest *Deployment) *JobRow {
	r := &JobRow{
		Namespace: j.Namespace, ID: j.ID, Name: j.Name, ParentID: j.ParentID, Type: j.Type, Status: j.Status, StatusDescription: j.StatusDescription,
		Priority: j.Priority, Stop: j.Stop, Multiregion: j.Multiregion != nil, Periodic: j.IsPeriodic(), ParameterizedJob: j.IsParameterized(),
		Version: j.Version, SubmitTime: j.SubmitTime, Datacenters: j.Datacenters,
		CreateIndex: j.CreateIndex, ModifyIndex: j.ModifyIndex, JobModifyIndex: j.JobModifyIndex,
	}
	for _, g := range j.TaskGroups {
		s := summary.Summary[g.Name]
		r.Groups = append(r.Groups, GroupRow{
			Name: g.Name, Count: g.Count, Queued: s.Queued, Starting: s.Starting, Running: s.Running, Complete: s.Complete,
			Failed: s.Failed, Lost: s.Lost, Unknown: s.Unknown,
		})
	}
	if summary.Children != nil && *summary.Children != (JobChildrenSummary{}) {
		r.Children = summary.Children
	}
	if newest != nil {
		r.DeploymentID, r.DeploymentStatus = newest.ID, newest.Status
	}
	return r
}

// Row is the node's row; used is what its tasks hold.
func (n *Node) Row(used Usage) *NodeRow {
	r := &NodeRow{
		ID: n.ID, Name: n.Name, Datacenter: n.Datacenter, NodeClass: n.NodeClass, NodePool: n.NodePool, Address: hostOf(n.HTTPAddr),
		Version: n.Attributes["nomad.version"], Status: n.Status, StatusDescription: n.StatusDescription,
		SchedulingEligibility: n.SchedulingEligibility, Drain: n.DrainStrategy != nil,
		Total: n.Capacity(), Used: used, CreateIndex: n.CreateIndex, ModifyIndex: n.ModifyIndex,
	}
	for name, d := range n.Drivers {
		if d != nil && d.Detected && d.Healthy {
			r.Drivers = append(r.Drivers, name)
		}
	}
	slices.Sort(r.Drivers)
	return r
}

// Row is the deployment's row.
func (d *Deployment) Row() *DeploymentRow {
	r := &DeploymentRow{
		Namespace: d.Namespace, ID: d.ID, JobID: d.JobID, JobVersion: d.JobVersion, Status: d.Status, StatusDescription: d.StatusDescription,
		IsMultiregion: d.IsMultiregion, CreateIndex: d.CreateIndex, ModifyIndex: d.ModifyIndex,
	}
	for _, g := range d.TaskGroups {
		r.DesiredTotal += g.DesiredTotal
		r.PlacedAllocs += g.PlacedAllocs
		r.HealthyAllocs += g.HealthyAllocs
		r.UnhealthyAllocs += g.UnhealthyAllocs
	}
	return r
}

// Stub is the row as an ordinary list of jobs has it.
func (r *JobRow) Stub() *JobStub {
	s := &JobStub{
		Region: r.Region, ID: r.ID, ParentID: r.ParentID, Name: r.Name, Namespace: r.Namespace, Datacenters: r.Datacenters, Type: r.Type,
		Priority: r.Priority, Periodic: r.Periodic, ParameterizedJob: r.ParameterizedJob, Stop: r.Stop, Status: r.Status,
		StatusDescription: r.StatusDescription, CreateIndex: r.CreateIndex, ModifyIndex: r.ModifyIndex,
		JobModifyIndex: r.JobModifyIndex, SubmitTime: r.SubmitTime,
		JobSummary: &JobSummary{
			JobID: r.ID, Namespace: r.Namespace, Summary: make(map[string]TaskGroupSummary, len(r.Groups)), Children: &JobChildrenSummary{},
			CreateIndex: r.CreateIndex, ModifyIndex: r.ModifyIndex,
		},
	}
	if r.Children != nil {
		s.JobSummary.Children = r.Children
	}
	for _, g := range r.Groups {
		s.JobSummary.Summary[g.Name] = TaskGroupSummary{
			Queued: g.Queued, Complete: g.Complete, Failed: g.Failed, Running: g.Running, Starting: g.Starting, Lost: g.Lost, Unknown: g.Unknown,
		}
	}
	return s
}

// Stub is the row as an ordinary list of nodes has it.
func (r *NodeRow) Stub() *NodeStub {
	s := &NodeStub{
		Region: r.Region, Address: r.Address, ID: r.ID, Datacenter: r.Datacenter, Name: r.Name, NodeClass: r.NodeClass, NodePool: r.NodePool,
		Version: r.Version, Drain: r.Drain, SchedulingEligibility: r.SchedulingEligibility, Status: r.Status,
		StatusDescription: r.StatusDescription, Drivers: make(map[string]*DriverInfo, len(r.Drivers)), CreateIndex: r.CreateIndex, ModifyIndex: r.ModifyIndex,
	}
	for _, d := range r.Drivers {
		s.Drivers[d] = &DriverInfo{Detected: true, Healthy: true}
	}
	return s
}

// RegionReport is what a region says of itself, beside its rows.
type RegionReport struct {
	// CellID is the cell's, Leader the RPC address of its leader, "" when
	// there is none.
	CellID, Leader string
	// RTT is how far the other regions are from the server that reports, by
	// gossip: the round trip to the nearest of each that is alive.
	RTT map[string]time.Duration
}

// RegionServer is a server of a region as another agent sees it.
type RegionServer struct {
	Name    string
	Address string
	// Alive is what gossip believes; RTT its estimate from the agent that
	// answers, 0 when there is none.
	Alive  bool
	Leader bool
	RTT    time.Duration
	Build  string
	// ProtocolMin and ProtocolMax are the versions of what servers say to each
	// other that it knows.
	ProtocolMin, ProtocolMax int
}

// RegionOverview is a region in the list of all: what the answering agent's own
// directory has of it, and what its summary tells.
type RegionOverview struct {
	// The answer says what Nodes, Jobs, Deployments, Leader and RTT are worth.
	// The others are the agent's own view, of now.
	RegionAnswer
	Healthy     bool
	LastContact time.Duration
	CellID      string
	Quarantined []CellClaim `json:",omitempty"`
	Servers     []RegionServer
	Leader      string
	// Nodes, Jobs and Deployments count them by status; nil when that is not
	// known.
	Nodes, Jobs, Deployments map[string]int
	// RTT is the region's row of the matrix of round trips.
	RTT map[string]time.Duration
}
