// Package scheduler decides what should run where: pure functions from a
// snapshot and an evaluation to a plan, without I/O, a clock or randomness of
// their own, so that the same inputs give the same plan.
//
// An evaluation goes through four steps:
//
//	reconcile   what of the job runs, and what should → stop, keep, update,
//	            place, now or later; how far a new version may go
//	feasible    which nodes may run a group at all, examined once a class
//	rank        among some that fit, the fullest that will still hold it, or the
//	            emptiest
//	plan        placements, stops and updates, and why something found no place
//
// Propose does these; Conclude writes down what came of it once the plan was
// applied; Check is the applier's side, which re-examines a plan on the newest
// state. Nothing here is kept between calls.
//
// What reconciliation decides can be read as transcripts in testdata. Deployments
// are created and cancelled here, and their limits held to (rolling.go); that
// allocations are healthy, canaries good and a deployment done is for others to
// find, who write it into the state.
package scheduler

import (
	"iter"
	"math/rand/v2"
	"time"

	"atoll/model"
)

// State is what scheduling reads: an immutable snapshot.
type State interface {
	// Job is the newest version, nil when there is no such job.
	Job(key model.JobID) *model.Job
	// AllocsOfJob yields all rows of a job, ended ones and those of earlier
	// jobs of the same id too.
	AllocsOfJob(key model.JobID) iter.Seq[*model.AllocRow]
	Alloc(id model.UUID) *model.AllocRow
	// EvalsOfJob yields a job's evaluations, of those that are over any or none.
	EvalsOfJob(key model.JobID) iter.Seq[*model.Evaluation]
	// LatestDeployment is the job's newest, by CreateIndex, ended or not; nil
	// when it never had one.
	LatestDeployment(key model.JobID) *model.Deployment
	// Nodes yields all nodes by id.
	Nodes() iter.Seq[*model.Node]
	Node(id model.UUID) *model.Node
	// Load is what a node's live rows hold: sums, and ports in ascending
	// order, each as often as it is held, not to be changed.
	Load(id model.UUID) (model.Usage, []uint16)
	Index() uint64
	// Algorithm is model.AlgorithmBinpack or model.AlgorithmSpread.
	Algorithm() string
}

// Options are what a proposal depends on beside the state.
type Options struct {
	Now time.Time
	// Rand shuffles nodes, draws ports and makes ids.
	Rand *rand.Rand
}

func (o Options) newUUID() model.UUID {
	return model.NewUUID(randReader{o.Rand})
}

type randReader struct{ *rand.Rand }

func (r randReader) Read(p []byte) (int, error) {
	for i := 0; i < len(p); i += 8 {
		v := r.Uint64()
		for k := i; k < min(i+8, len(p)); k++ {
			p[k] = byte(v)
			v >>= 8
		}
	}
	return len(p), nil
}
