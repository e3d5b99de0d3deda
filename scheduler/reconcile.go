package scheduler

import (
	"cmp"
	"slices"
	"time"

	"atoll/model"
)

// decisions are what reconciliation comes to.
type decisions struct {
	stop       []model.PlanStop
	update     []*model.AllocRow
	disconnect []*model.AllocRow
	reconnect  []model.UUID
	// place are the allocations to place, by group; system, for jobs that run
	// on every node, says where not to.
	place  map[string][]wanted
	system map[string]*everyNode
	// waits are what only a later evaluation can decide.
	waits []wait
	// deployment is that of the job's version that goes on; it is to be made
	// when created is set. cancel are those that end.
	deployment *model.Deployment
	created    bool
	cancel     []model.DeploymentUpdate
	desired    map[string]*model.DesiredUpdates
}

// wanted is one allocation to place.
type wanted struct {
	// previous is what it takes over from; nil for a new one.
	previous *model.AllocRow
	// job is the version to place, nil for the newest.
	job    *model.Job
	index  uint32
	how    how
	canary bool
}

// how is why an allocation is wanted.
type how uint8

const (
	isNew         how = iota
	isSuccessor       // previous is over
	isMigrated        // previous is being stopped, whatever comes of this
	isStandIn         // previous is unknown, and may come back
	isRescheduled     // previous failed; this counts as an attempt
	isReplacement     // previous runs until this is placed
)

// stops says why previous is stopped once the allocation is placed, and only
// then; "" when it is not.
func (w *wanted) stops() string {
	switch w.how {
	case isRescheduled:
		return whyRescheduled
	case isReplacement:
		return whyReplaced
	}
	return ""
}

const (
	whyStopped     = "alloc not needed as the job was stopped"
	whySurplus     = "alloc not needed due to job update"
	whyDown        = "alloc is lost since its node is down"
	whyAway        = "alloc is lost since its node is out of touch"
	whyNodeGone    = "alloc is lost since its node is gone"
	whyExpired     = "alloc is lost since its node was not back in time"
	whyReplaced    = "alloc is being updated due to job update"
	whyRescheduled = "alloc was rescheduled because it failed"
	whyMigrated    = "alloc is being migrated"
	whyOldJob      = "alloc belongs to an earlier job of the same id"
	whyOldCanary   = "alloc not needed as its deployment is over"
	whyStandIn     = "alloc not needed as the one that it stood in for is back"
	whyStoodIn     = "alloc not needed as its stand-in goes on"
	whyElsewhere   = "alloc not needed as the job no longer runs on its node"
	whyBlocked     = "created to place remaining allocations"
)

// reconciler compares what runs of a job with what should.
type reconciler struct {
	*decisions
	st State
	// job is nil or stopped when nothing should run.
	job  *model.Job
	eval *model.Evaluation
	now  time.Time
	// latest is the job's newest deployment, of whatever version.
	latest *model.Deployment
	// ran are the groups of which the job's version ran once.
	ran map[string]bool
	// lost are, by number, the newest of what went with its node, or left it.
	lost  map[slot]*model.AllocRow
	nodes map[model.UUID]*model.Node
	alike map[likeness]bool
	check *checker
}

// reconcile decides on all of a job's allocations.
func reconcile(st State, job *model.Job, eval *model.Evaluation, now time.Time) *decisions {
	r := &reconciler{
		decisions: &decisions{place: make(map[string][]wanted), system: make(map[string]*everyNode), desired: make(map[string]*model.DesiredUpdates)},
		st:        st, job: job, eval: eval, now: now, ran: make(map[string]bool), lost: make(map[slot]*model.AllocRow),
		nodes: make(map[model.UUID]*model.Node), alike: make(map[likeness]bool), check: newChecker(),
	}
	r.settleDeployment(eval.JobKey())
	groups := r.sort(eval.JobKey())
	if job.Stopped() {
		return r.decisions
	}
	for _, g := range job.TaskGroups {
		r.desired[g.Name] = &model.DesiredUpdates{}
		if everywhere(job) {
			r.everyNode(g, groups[g.Name])
		} else {
			r.group(g, groups[g.Name])
		}
	}
	return r.decisions
}

func everywhere(job *model.Job) bool {
	return job.Type == model.JobTypeSystem || job.Type == model.JobTypeSysBatch
}

// sort returns the rows to decide on, by group, and stops those that belong to
// none.
func (r *reconciler) sort(key model.JobID) map[string][]*model.AllocRow {
	groups := make(map[string][]*model.AllocRow)
	for row := range r.st.AllocsOfJob(key) {
		why := ""
		switch {
		case r.job.Stopped():
			why = whyStopped
		case row.Job().CreateIndex != r.job.CreateIndex:
			why = whyOldJob
		case r.job.Group(row.Shared.Group) == nil:
			why = whySurplus
		}
		switch {
		case why == "":
			if row.Job().Version == r.job.Version {
				r.ran[row.Shared.Group] = true
			}
			noteLost(r.lost, row)
			if !row.ServerTerminal() || r.job.Type == model.JobTypeBatch && row.Transition().ShouldNotPlace() {
				groups[row.Shared.Group] = append(groups[row.Shared.Group], row)
			}
		case !row.Terminal():
			r.end(row, why)
		}
	}
	return groups
}

// end stops a row, whose node cannot say so itself when it is down.
func (r *reconciler) end(row *model.AllocRow, why string) {
	n := r.node(row.NodeID)
	r.stop = append(r.stop, model.PlanStop{ID: row.ID, Description: why, Lost: n == nil || n.Status == model.NodeStatusDown})
}

func (r *reconciler) node(id model.UUID) *model.Node {
	n, seen := r.nodes[id]
	if !seen {
		n = r.st.Node(id)
		r.nodes[id] = n
	}
	return n
}

// groupState is one group while it is decided on.
type groupState struct {
	*reconciler
	group *model.TaskGroup
	did   *model.DesiredUpdates
	// state is the group's part of the deployment, nil when there is none yet.
	state *model.DeploymentState
	// taken are the numbers of allocations that need nothing, or that nothing
	// can be done for.
	taken numbers
	// running are to be looked at, canaries the deployment's own, back those
	// whose node is in touch again.
	running, canaries, back []*model.AllocRow
	// forgiven failed under an earlier version.
	forgiven []*model.AllocRow
	// replace is what runs of earlier versions.
	replace []*model.AllocRow
	want    []wanted
	// unproven and unhealthy count the deployment's allocations.
	unproven, unhealthy int
}

// group decides on one group of a service or batch job.
func (r *reconciler) group(g *model.TaskGroup, rows []*model.AllocRow) {
	s := &groupState{reconciler: r, group: g, did: r.desired[g.Name], taken: newNumbers(g.Count)}
	if r.deployment != nil {
		s.state = r.deployment.TaskGroups[g.Name]
	}
	for _, row := range rows {
		s.classify(row)
	}
	s.reunite()
	s.keep()
	s.roll()
}

// classify puts a row where it belongs.
func (s *groupState) classify(row *model.AllocRow) {
	canary := s.isCanary(row)
	switch {
	case row.ServerTerminal():
		// Batch work that a drain ended for good.
		if row.Job().Version == s.job.Version {
			s.taken.add(row.Index)
		}
	case row.Client == model.ClientComplete:
		// A batch allocation that is done stays done for its version; a
		// service has nothing left and is placed anew.
		if s.job.Type == model.JobTypeBatch && row.Job().Version == s.job.Version {
			s.taken.add(row.Index)
			s.did.Ignore++
		}
	case row.Client == model.ClientFailed:
		s.failed(row, canary)
	case row.ClientTerminal():
		// Lost: its replacement was placed with it.
	case row.DeploymentStatus().IsCanary() && !canary && !s.promoted(row):
		s.end(row, whyOldCanary)
		s.did.Stop++
	default:
		s.alive(row, canary)
	}
}

// alive decides on a row that may run.
func (s *groupState) alive(row *model.AllocRow, canary bool) {
	touch, why := s.contact(row)
	switch {
	case touch == lost:
		s.stop = append(s.stop, model.PlanStop{ID: row.ID, Description: why, Lost: true})
		s.did.Stop++
		if !replaced(s.st, row) {
			s.want = append(s.want, wanted{previous: row, index: row.Index, how: isSuccessor, canary: canary})
		}
	case touch == outOfTouch:
		s.unknown(row, canary)
	case touch == closing:
		s.hold(row, canary)
	case row.Transition().ShouldMigrate() && row.Disconnected() == 0:
		s.migrate(row, canary)
	case row.Disconnected() != 0:
		s.back = append(s.back, row)
	case canary:
		s.hold(row, true)
	default:
		s.prove(row)
		s.running = append(s.running, row)
	}
}

// migrate stops a row whose node is to be left, and places it elsewhere.
func (s *groupState) migrate(row *model.AllocRow, canary bool) {
	s.end(row, whyMigrated)
	s.did.Migrate++
	if row.Transition().ShouldNotPlace() {
		s.taken.add(row.Index)
	} else {
		s.want = append(s.want, wanted{previous: row, index: row.Index, how: isMigrated, canary: canary})
	}
}

// hold leaves a row as it is, and its number to it.
func (s *groupState) hold(row *model.AllocRow, canary bool) {
	s.prove(row)
	s.did.Ignore++
	if canary {
		s.canaries = append(s.canaries, row)
	} else {
		s.taken.add(row.Index)
	}
}

// prove counts a row that the deployment must find healthy.
func (s *groupState) prove(row *model.AllocRow) {
	if row.Shared.DeploymentID != s.deploymentID() {
		return
	}
	switch ds := row.DeploymentStatus(); {
	case ds.IsUnhealthy():
		s.unhealthy++
	case !ds.IsHealthy():
		s.unproven++
	}
}

// keep decides on rows that run: which are too many, which are out of date.
func (s *groupState) keep() {
	// Of two with one number the newer version stays, which may be a canary
	// that was promoted, then the newer.
	slices.SortStableFunc(s.running, func(a, b *model.AllocRow) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(b.Job().Version, a.Job().Version), cmp.Compare(b.CreateIndex, a.CreateIndex))
	})
	for _, row := range s.running {
		if int(row.Index) >= s.group.Count || s.taken.has(row.Index) {
			s.stop = append(s.stop, model.PlanStop{ID: row.ID, Description: whySurplus})
			s.did.Stop++
			continue
		}
		s.taken.add(row.Index)
		switch {
		case row.Job().Version == s.job.Version:
			s.did.Ignore++
		case s.inPlace(row):
			s.update = append(s.update, row)
			s.did.InPlaceUpdate++
		default:
			s.replace = append(s.replace, row)
		}
	}
}

// numbers is a set of the numbers in allocations' names.
type numbers []uint64

func newNumbers(count int) numbers { return make(numbers, (count+63)/64) }

func (n numbers) has(i uint32) bool {
	return int(i/64) < len(n) && n[i/64]&(1<<(i%64)) != 0
}

func (n *numbers) add(i uint32) {
	for int(i/64) >= len(*n) {
		*n = append(*n, 0)
	}
	(*n)[i/64] |= 1 << (i % 64)
}
