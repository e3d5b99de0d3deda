package method

import "atoll/model"

// What the regions of a multi-region job say to each other, and to whoever asks
// how far it is.
var (
	// RolloutTell exchanges what two regions know.
	RolloutTell = report[RolloutTellRequest, RolloutTellResponse]("Rollout.Tell")
	// RolloutVote asks for a region's vote.
	RolloutVote = report[RolloutVoteRequest, RolloutVoteResponse]("Rollout.Vote")
	// RolloutRoom asks how many more of a job would fit in a region.
	RolloutRoom = Method[RolloutRoomRequest, RolloutRoomResponse]{Spec{Name: "Rollout.Room", Place: AtLeader}}
	// RolloutPlan asks what a submit of a multi-region job would do in each of its
	// regions. It changes nothing.
	RolloutPlan = Method[RolloutPlanRequest, RolloutPlanResponse]{Spec{Name: "Rollout.Plan", Place: AtLeader}}
	// RolloutGet reads what a region knows of a job's rollout.
	RolloutGet = read[JobRequest, RolloutResponse]("Rollout.Get")

	DeploymentUnblock = write[DeploymentUnblockRequest, DeploymentUpdateResponse]("Deployment.Unblock")
)

type (
	// RolloutNews is what a region knows of one job.
	RolloutNews struct {
		Key model.JobID
		// Region is the region.
		Region string
		// Won is the newest version known to have won; Proposal is that version,
		// where its hearer is thought not to have it.
		Won      model.Mark
		Proposal *model.Proposal
		Shares   []model.Share
		// Over says that nothing of the job is left to do or to hear of, nor runs,
		// in the region: what it holds then is nothing to begin with elsewhere.
		Over bool
		// Error, unless "", is why the region could not take up what it was told of
		// this job.
		Error string
		// Votes, Open and Blind are as model.Rollout has them.
		Votes []model.Vote
		Open  uint64
		Blind uint64
		// Undecided is what the region has voted for without knowing what became
		// of it, after what that overruled; nil when there is none.
		Undecided []model.Submit
		// Taken is the lowest version that the region's job has not had.
		Taken uint64
		// Index is that of the teller's newest change of it.
		Index uint64
		// Count is the sum of its counts, of the groups whose count the regions
		// divide.
		Count int
	}
	RolloutTellRequest  struct{ News []RolloutNews }
	RolloutTellResponse struct{ News []RolloutNews }

	RolloutVoteRequest struct{ Proposal *model.Proposal }
	// RolloutVoteResponse says whether the region has voted for the proposal; if
	// not, Why, and whether it Never will. Rival is then the newest version that it
	// has voted for or knows to have won.
	RolloutVoteResponse struct {
		Yes   bool
		Never bool
		Why   string
		Rival model.Mark
	}

	// RolloutRoomRequest asks how many more allocations of each group of a job
	// would fit beside what runs, tried with so many of each at once.
	RolloutRoomRequest struct {
		Job    *model.Job
		Region string
		Try    map[string]int
	}
	RolloutRoomResponse struct{ Fits map[string]int }

	// RolloutPlanRequest asks for a submit of Job or, unless Without is "", for
	// what the other regions could do if that one were lost: then they take over
	// what it would have run.
	RolloutPlanRequest struct {
		Job     *model.Job
		Diff    bool
		Without string
	}
	RolloutPlanResponse struct {
		Version uint64
		// Regions are in the order of the job's.
		Regions []RegionPlan
	}

	RolloutResponse struct {
		Meta
		// Rollout is nil for a job that is not multi-region.
		Rollout *model.Rollout
	}

	DeploymentUnblockRequest struct{ DeploymentID string }
)

// RolloutHolder says of a region whether it holds a submitted version.
type RolloutHolder struct {
	Region string
	Holds  bool
	Error  string `json:",omitempty"`
}

// Check refuses news whose proposal no region would send.
func (n *RolloutNews) Check() error {
	if n.Proposal == nil {
		return nil
	}
	if err := n.Proposal.Check(); err != nil {
		return err
	}
	if n.Proposal.Key() != n.Key || n.Proposal.Mark() != n.Won {
		return model.Invalidf("Proposal", "cannot take a proposal: it is version %d of job %q, where version %d of job %q has won", n.Proposal.Version, n.Proposal.Job.ID, n.Won.Version, n.Key.ID)
	}
	return nil
}
