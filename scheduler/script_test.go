package scheduler

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"atoll/internal/wire"
	"atoll/model"
)

// TestScripts runs the transcripts in testdata: one file a theme. Allocations
// are called a1, a2, … in the order of their placement. Whatever is proposed is
// held against Check before it is applied. To write down what happens now:
//
//	go test ./scheduler -run Scripts -rewrite
//
// The commands:
//
//	nodes NAME…            add nodes (cpu=, dc=, meta= set what they are)
//	node NAME              change one (status=, eligible=, meta=)
//	job ID                 register (type=, count=, run= tells versions apart,
//	                       cpu=, dc=); lines: update, reschedule, disconnect,
//	                       constraint
//	stop-job, purge-job ID
//	reconcile ID           propose, print, apply (trigger=)
//	report ALLOC… STATUS   what a node says (started= for longest_running)
//	health ALLOC… yes|no
//	transition ALLOC… WHAT migrate, migrate-only, reschedule or force
//	deployment ID VERB     promote, pause, resume, fail, succeed; show
//	advance TIME           lets time go by; tells of evaluations that are due
//	allocs ID              what is live
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			s := &script{world: newWorld(), names: make(map[string]model.UUID)}
			datadriven.RunTest(t, path, s.run)
		})
	}
}

type script struct {
	*world
	t     *testing.T
	d     *datadriven.TestData
	names map[string]model.UUID // of nodes
}

func (s *script) run(t *testing.T, d *datadriven.TestData) (out string) {
	t.Helper()
	s.t, s.d = t, d
	commands := map[string]func() string{
		"nodes": s.addNodes, "node": s.changeNode, "job": s.registerJob, "stop-job": s.stopJob, "purge-job": s.purgeJob,
		"reconcile": s.reconcile, "report": s.reports, "health": s.healths, "transition": s.transition,
		"deployment": s.deploymentVerb, "advance": s.advance, "allocs": s.allocs,
	}
	f := commands[d.Cmd]
	if f == nil {
		f = func() string { s.wrong("there is no command %q", d.Cmd); return "" }
	}
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(wrong); !ok {
				panic(r)
			}
			out = fmt.Sprint("error: ", r)
		}
	}()
	return f()
}

// wrong is an error in a script; it shows in the transcript.
type wrong string

func (s *script) wrong(format string, args ...any) { panic(wrong(fmt.Sprintf(format, args...))) }

// arg is the value of key=, or def.
func (s *script) arg(key, def string) string {
	for _, a := range s.d.CmdArgs {
		if a.Key == key && len(a.Vals) > 0 {
			return a.Vals[0]
		}
	}
	return def
}

// words are the arguments without a value.
func (s *script) words() (out []string) {
	for _, a := range s.d.CmdArgs {
		if len(a.Vals) == 0 {
			out = append(out, a.Key)
		}
	}
	return out
}

func (s *script) number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		s.wrong("%v", err)
	}
	return n
}

func (s *script) duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		s.wrong("%v", err)
	}
	return d
}

func (s *script) addNodes() string {
	for _, name := range s.words() {
		s.names[name] = s.node(name, size(int64(s.number(s.arg("cpu", "1000")))), inDC(s.arg("dc", "dc1")), meta(s.arg("meta", "")))
	}
	return ""
}

func meta(v string) func(*model.Node) { return func(n *model.Node) { n.Meta["kind"] = v } }

func (s *script) changeNode() string {
	id, ok := s.names[s.words()[0]]
	if !ok {
		s.wrong("no such node")
	}
	s.change(id, func(n *model.Node) {
		if status := s.arg("status", n.Status); status != n.Status {
			n.Status, n.StatusUpdatedAt = status, s.now.Unix()
		}
		n.SchedulingEligibility = s.arg("eligible", n.SchedulingEligibility)
		n.Meta["kind"] = s.arg("meta", n.Meta["kind"])
	})
	return ""
}

func (s *script) registerJob() string {
	j := job(s.words()[0], s.number(s.arg("count", "1")), func(j *model.Job) {
		j.Type = s.arg("type", model.JobTypeService)
		j.Datacenters = []string{s.arg("dc", "*")}
		g := j.TaskGroups[0]
		g.Tasks[0].Config["run_for"] = s.arg("run", "1")
		g.Tasks[0].Resources.CPU = s.number(s.arg("cpu", "100"))
		for line := range strings.Lines(s.d.Input) {
			s.block(g, strings.Fields(line))
		}
	})
	if _, err := j.Validate(); err != nil {
		s.wrong("%v", err)
	}
	return fmt.Sprintf("version %d", s.register(j).Version)
}

// block reads a line of a job: the block's name, then key=value.
func (s *script) block(g *model.TaskGroup, fields []string) {
	if fields[0] == "constraint" {
		g.Constraints = append(g.Constraints, &model.Constraint{LTarget: fields[1], Operand: fields[2], RTarget: fields[3]})
		return
	}
	var keys map[string]any
	switch fields[0] {
	case "update":
		u := model.NewUpdateStrategy()
		g.Update = u
		keys = map[string]any{"max_parallel": &u.MaxParallel, "canary": &u.Canary, "auto_promote": &u.AutoPromote, "auto_revert": &u.AutoRevert, "stagger": &u.Stagger, "progress_deadline": &u.ProgressDeadline}
		u.AutoPromoteGiven, u.AutoRevertGiven = true, true
	case "reschedule":
		p := model.NewReschedulePolicy()
		p.UnlimitedGiven = true
		g.ReschedulePolicy = p
		keys = map[string]any{"attempts": &p.Attempts, "interval": &p.Interval, "delay": &p.Delay, "delay_function": &p.DelayFunction, "max_delay": &p.MaxDelay, "unlimited": &p.Unlimited}
	case "disconnect":
		x := model.NewDisconnectStrategy()
		g.Disconnect = x
		keys = map[string]any{"lost_after": &x.LostAfter, "stop_on_client_after": &x.StopOnClientAfter, "replace": &x.Replace, "reconcile": &x.Reconcile}
	default:
		s.wrong("no block %q", fields[0])
	}
	for _, f := range fields[1:] {
		key, text, _ := strings.Cut(f, "=")
		switch to := keys[key].(type) {
		case *int:
			*to = s.number(text)
		case *bool:
			*to = text == "true"
		case *string:
			*to = text
		case *time.Duration:
			*to = s.duration(text)
		default:
			s.wrong("block %s has no %q", fields[0], key)
		}
	}
}

func (s *script) jobOf(id string) *model.Job {
	j := s.jobs[model.JobID{Namespace: model.DefaultNamespace, ID: id}]
	if j == nil {
		s.wrong("no job %q", id)
	}
	return j
}

func (s *script) stopJob() string {
	j := model.Clone(s.jobOf(s.words()[0]))
	j.Stop = true
	s.register(j)
	return ""
}

func (s *script) purgeJob() string {
	delete(s.jobs, s.jobOf(s.words()[0]).Key())
	return ""
}

// label is an allocation's name in the transcript.
func (s *script) label(id model.UUID) string {
	for i, r := range s.rows {
		if r.ID == id {
			return fmt.Sprintf("a%d", i+1)
		}
	}
	return "a?"
}

func (s *script) named(label string) *model.AllocRow {
	n := s.number(strings.TrimPrefix(label, "a"))
	if n < 1 || n > len(s.rows) {
		s.wrong("no allocation %q", label)
	}
	return s.rows[n-1]
}

// of is what there is to say of an allocation.
func (s *script) of(r *model.AllocRow) string {
	node := "a node that is gone"
	if n := s.Node(r.NodeID); n != nil {
		node = n.Name
	}
	out := fmt.Sprintf("%s %s[%d] v%d on %s", s.label(r.ID), r.Shared.Job.ID, r.Index, r.Shared.Job.Version, node)
	if r.DeploymentStatus().IsCanary() {
		out += ", canary"
	}
	return out
}

func (s *script) reconcile() string {
	id := s.words()[0]
	j := s.jobs[model.JobID{Namespace: model.DefaultNamespace, ID: id}]
	if j == nil { // purged
		j = job(id, 0)
	}
	e := s.eval(j, s.arg("trigger", model.TriggerJobRegister))
	p, err := Propose(s.world, e, s.opts())
	if err != nil {
		return err.Error()
	}
	s.holdAgainstCheck(p.Plan)
	var out strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }
	plan := p.Plan
	if d := plan.Deployment; d != nil {
		say("deployment of v%d%s", d.JobVersion, progress(d))
	}
	for _, u := range plan.DeploymentUpdates {
		say("deployment %s: %s", u.Status, u.StatusDescription)
	}
	for _, st := range plan.Stop {
		how := "stop"
		if st.Lost {
			how = "lost"
		}
		say("%s %s: %s", how, s.of(s.Alloc(st.ID)), st.Description)
	}
	for _, d := range plan.Disconnect {
		say("unknown %s", s.of(s.Alloc(d.ID)))
	}
	for _, r := range plan.Reconnect {
		say("reconnect %s", s.of(s.Alloc(r)))
	}
	for _, u := range plan.Update {
		say("update %s to v%d", s.of(s.Alloc(u.ID)), plan.JobVersion)
	}
	first := len(s.rows)
	waits := s.waits(p)
	s.apply(plan)
	s.evals = append(s.evals, p.Later...)
	for _, r := range s.rows[first:] {
		more := ""
		if x := r.Extra; x != nil && !x.Previous.IsZero() {
			more = " after " + s.label(x.Previous)
			if x.Reschedule != nil {
				more += fmt.Sprintf(", attempt %d", len(x.Reschedule.Events))
			}
		}
		if !r.Shared.DeploymentID.IsZero() {
			more += ", deployed"
		}
		say("place %s%s", s.of(r), more)
	}
	for _, group := range slices.Sorted(maps.Keys(p.Failed)) {
		m := p.Failed[group]
		say("no place for %d of %s: %d filtered, %d exhausted %v", p.Queued[group], group, m.NodesFiltered, m.NodesExhausted, m.DimensionExhausted)
	}
	out.WriteString(waits)
	notOversubscribed(s.t, s.world)
	if out.Len() == 0 {
		return "nothing"
	}
	return out.String()
}

// waits tells what is left for later, and for whom.
func (s *script) waits(p *Proposal) string {
	var out strings.Builder
	for _, e := range p.Later {
		var rows []string
		id, _ := model.ParseUUID(e.ID)
		for _, f := range p.Plan.Followup {
			if f.Eval == id {
				rows = append(rows, s.label(f.ID))
			}
		}
		for _, d := range p.Plan.Disconnect {
			if d.FollowupEval == id {
				rows = append(rows, s.label(d.ID))
			}
		}
		fmt.Fprintln(&out, strings.Join(append([]string{"later:", e.TriggeredBy, "in", e.WaitUntil.Sub(s.now).String()}, rows...), " "))
	}
	return out.String()
}

func (s *script) holdAgainstCheck(p *model.Plan) {
	if accepted, rejected := Check(s.world, p); len(rejected) > 0 || len(accepted.Place) != len(p.Place) || len(accepted.Stop) != len(p.Stop) {
		s.wrong("Check refuses a plan on the state it was made on: nodes %v", rejected)
	}
}

func progress(d *model.Deployment) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(d.TaskGroups)) {
		g := d.TaskGroups[name]
		text := fmt.Sprintf("%s wants %d", name, g.DesiredTotal)
		if g.DesiredCanaries > 0 {
			text += fmt.Sprintf(" after %d canaries", g.DesiredCanaries)
		}
		out = append(out, text)
	}
	return ": " + strings.Join(out, "; ")
}

func (s *script) reports() string {
	words := s.words()
	status, ok := model.ParseClientStatus(words[len(words)-1])
	if !ok {
		s.wrong("no status %q", words[len(words)-1])
	}
	for _, label := range s.labels(words[:len(words)-1]) {
		id := s.named(label).ID
		s.report(id, status)
		if ago := s.arg("started", ""); ago != "" {
			states, err := wire.Encode(map[string]*model.TaskState{"main": {State: model.TaskStateRunning, StartedAt: s.now.Add(-s.duration(ago))}})
			if err != nil {
				s.wrong("%v", err)
			}
			s.extra(id, func(_ *model.AllocRow, x *model.AllocExtra) { x.TaskStates = states })
		}
	}
	return ""
}

// labels spells out a1-a4.
func (s *script) labels(words []string) (out []string) {
	for _, w := range words {
		from, to, isRange := strings.Cut(w, "-")
		if !isRange {
			out = append(out, w)
			continue
		}
		for i := s.number(from[1:]); i <= s.number(to[1:]); i++ {
			out = append(out, fmt.Sprintf("a%d", i))
		}
	}
	return out
}

func (s *script) healths() string {
	words := s.words()
	for _, label := range s.labels(words[:len(words)-1]) {
		s.health(s.named(label).ID, words[len(words)-1] == "yes")
	}
	return ""
}

func (s *script) transition() string {
	words := s.words()
	yes := true
	tr := map[string]*model.DesiredTransition{
		"migrate": {Migrate: &yes}, "migrate-only": {Migrate: &yes, MigrateDisablePlacement: &yes}, "reschedule": {Reschedule: &yes}, "force": {ForceReschedule: &yes},
	}[words[len(words)-1]]
	if tr == nil {
		s.wrong("no transition %q", words[len(words)-1])
	}
	for _, label := range s.labels(words[:len(words)-1]) {
		s.extra(s.named(label).ID, func(_ *model.AllocRow, x *model.AllocExtra) { x.Transition = tr })
	}
	return ""
}

func (s *script) deploymentVerb() string {
	words := s.words()
	d := s.LatestDeployment(s.jobOf(words[0]).Key())
	if d == nil {
		return "none"
	}
	set := func(status string) { s.deployment(d.ID, func(d *model.Deployment) { d.Status = status }) }
	switch words[1] {
	case "promote":
		s.promote(d)
	case "pause":
		set(model.DeploymentPaused)
	case "resume":
		set(model.DeploymentRunning)
	case "fail":
		set(model.DeploymentFailed)
	case "succeed":
		set(model.DeploymentSuccessful)
	case "show":
		var out []string
		for _, name := range slices.Sorted(maps.Keys(d.TaskGroups)) {
			g := d.TaskGroups[name]
			out = append(out, fmt.Sprintf("v%d %s: %s placed %d of %d, %d healthy, %d unhealthy, %d canaries of %d, promoted %v",
				d.JobVersion, d.Status, name, g.PlacedAllocs, g.DesiredTotal, g.HealthyAllocs, g.UnhealthyAllocs, len(g.PlacedCanaries), g.DesiredCanaries, g.Promoted))
		}
		return strings.Join(out, "\n")
	default:
		s.wrong("a deployment cannot %q", words[1])
	}
	return ""
}

func (s *script) advance() string {
	s.now = s.now.Add(s.duration(s.words()[0]))
	var out []string
	for i, e := range s.evals {
		if e.Status == model.EvalPending && !e.WaitUntil.After(s.now) {
			c := *e
			c.Status = model.EvalComplete
			s.evals[i] = &c
			out = append(out, "due: "+e.TriggeredBy+" of "+e.JobID)
		}
	}
	return strings.Join(out, "\n")
}

func (s *script) allocs() string {
	live := s.live(s.jobOf(s.words()[0]))
	slices.SortStableFunc(live, func(a, b *model.AllocRow) int { return cmp.Compare(a.Index, b.Index) })
	var out []string
	for _, r := range live {
		out = append(out, s.of(r)+" "+r.View("", nil).ClientStatus)
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, "\n")
}
