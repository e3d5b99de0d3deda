package method

import (
	"time"

	"atoll/model"
)

// What regions tell each other of their jobs, nodes and deployments, and the
// answers that are made of it.
var (
	// SummaryPull answers with what changed in a region since the asker last
	// asked, in any number of frames, and ends. It waits for nothing, so that
	// what it tells is no older than the question.
	SummaryPull = Method[SummaryPullRequest, SummaryFrame]{Spec{Name: "Summary.Pull", Place: AtServer, Stream: true}}
	// These are one region's own rows, a page of them.
	SummaryJobs        = summary[*model.JobRow]("Summary.Jobs")
	SummaryNodes       = summary[*model.NodeRow]("Summary.Nodes")
	SummaryDeployments = summary[*model.DeploymentRow]("Summary.Deployments")
	// SummaryTotals is a region's word about itself, with its rows counted.
	SummaryTotals = Method[Empty, SummaryTotalsResponse]{Spec{Name: "Summary.Totals", Place: AtLeaderOrStale}}

	// These are the rows of many regions, from any server of any of them.
	FederationRegions     = server[FederationRequest, FederationRegionsResponse]("Federation.Regions")
	FederationJobs        = federation[*model.JobRow]("Federation.Jobs")
	FederationNodes       = federation[*model.NodeRow]("Federation.Nodes")
	FederationDeployments = federation[*model.DeploymentRow]("Federation.Deployments")
)

func summary[Row any](name string) Method[SummaryRequest, SummaryPage[Row]] {
	return Method[SummaryRequest, SummaryPage[Row]]{Spec{Name: name, Place: AtLeaderOrStale}}
}

func federation[Row any](name string) Method[FederationRequest, FederationPage[Row]] {
	return server[FederationRequest, FederationPage[Row]](name)
}

type (
	// SummaryPullRequest says what the asker has: everything up to index Since
	// of the state that State names, nothing when that is "".
	SummaryPullRequest struct {
		State string
		Since uint64
		// Report asks for the region's word about itself too.
		Report bool
	}
	// SummaryFrame is a piece of an answer. The first says what the whole is.
	SummaryFrame struct {
		// State names the state that indexes are of: another cell's, or one
		// that was restored, has another name.
		State string `codec:",omitempty"`
		// Full says that the rows are all there are; else they are those that
		// changed, and those that are gone.
		Full bool `codec:",omitempty"`
		// Index is up to which the rows are complete.
		Index uint64 `codec:",omitempty"`
		// LastContact is for how long, before the question, the answering
		// server had not heard its leader.
		LastContact time.Duration       `codec:",omitempty"`
		Report      *model.RegionReport `codec:",omitempty"`
		// Rows are SummaryRows, deflated; nil when there are none.
		Rows []byte `codec:",omitempty"`
	}
	// SummaryRows are rows, and the keys of those that are gone.
	SummaryRows struct {
		Jobs            []*model.JobRow        `codec:",omitempty"`
		Nodes           []*model.NodeRow       `codec:",omitempty"`
		Deployments     []*model.DeploymentRow `codec:",omitempty"`
		GoneJobs        []model.RowKey         `codec:",omitempty"`
		GoneNodes       []model.RowKey         `codec:",omitempty"`
		GoneDeployments []model.RowKey         `codec:",omitempty"`
	}

	// SummaryRequest selects rows. Query.NextToken is one of an answer over
	// many regions; Query.Namespace does not matter to nodes.
	SummaryRequest struct {
		Query
		// ID selects one row, "" all.
		ID string
	}
	SummaryPage[Row any] struct {
		Meta
		Rows []Row
	}
	SummaryTotalsResponse struct {
		Meta
		Report                   model.RegionReport
		Nodes, Jobs, Deployments map[string]int
	}

	// FederationRequest selects rows of regions.
	FederationRequest struct {
		SummaryRequest
		// Regions are those wanted, none for all.
		Regions []string
		// Fresh asks each region itself, within Wait; Wait 0 means as long as
		// there is.
		Fresh bool
		Wait  time.Duration
	}
	FederationPage[Row any] struct {
		// Regions says what each region's rows are worth.
		Regions []model.RegionAnswer
		// Rows are in the order of namespace, id, region.
		Rows      []Row
		NextToken string
	}
	FederationRegionsResponse struct{ Regions []*model.RegionOverview }
)
