package scheduler

import (
	"encoding/json"
	"maps"

	"atoll/model"
)

// likeness is a question that is asked once for all rows of one version.
type likeness struct {
	old   *model.Job
	group string
	about string // "tasks" or "place"
}

// once answers a question of likeness from memory.
func (r *reconciler) once(q likeness, ask func() bool) bool {
	answer, known := r.alike[q]
	if !known {
		answer = ask()
		r.alike[q] = answer
	}
	return answer
}

// inPlace reports whether a row of an older version can go on as one of the
// new: nothing differs that its tasks would see, and the new version may run
// on its node.
func (r *reconciler) inPlace(row *model.AllocRow) bool {
	old, group := row.Job(), row.Shared.Group
	if !r.once(likeness{old, group, "tasks"}, func() bool { return sameTasks(old, r.job, group) }) {
		return false
	}
	if r.once(likeness{old, group, "place"}, func() bool { return samePlace(old, r.job, group) }) {
		return true
	}
	n := r.node(row.NodeID)
	return n != nil && r.belongs(n) && r.meetsAll(n, r.job.Group(group))
}

// belongs reports whether a node is in the job's datacenters and pool.
func (r *reconciler) belongs(n *model.Node) bool {
	return r.job.MatchesPool(n.NodePool) && r.job.MatchesDatacenter(n.Datacenter)
}

func (r *reconciler) meetsAll(n *model.Node, g *model.TaskGroup) bool {
	for _, list := range append([][]*model.Constraint{r.job.Constraints, g.Constraints}, taskConstraints(g)...) {
		for _, c := range list {
			if !r.check.meets(n, c) {
				return false
			}
		}
	}
	return true
}

// sameTasks reports whether a group of the new version can be run by what runs
// of the old: nothing differs but counts, policies and what only the server
// acts on.
func sameTasks(old, now *model.Job, group string) bool {
	was, is := old.Group(group), now.Group(group)
	return was != nil && maps.Equal(old.Meta, now.Meta) && sameJSON(inert(was), inert(is))
}

// SameTask reports whether a task of a group's older version can go on as the
// newer one's, as far as the task itself goes.
func SameTask(old, now *model.Job, group, task string) bool {
	find := func(j *model.Job) *model.Task {
		if g := j.Group(group); g != nil {
			return inert(g).Task(task)
		}
		return nil
	}
	was, is := find(old), find(now)
	return was != nil && is != nil && sameJSON(was, is)
}

// samePlace reports whether two versions may run on the same nodes.
func samePlace(old, now *model.Job, group string) bool {
	where := func(j *model.Job) any {
		g := j.Group(group)
		return []any{j.Datacenters, j.NodePool, j.Constraints, g.Constraints, taskConstraints(g)}
	}
	return sameJSON(where(old), where(now))
}

// inert is a group without what can change while its tasks run.
func inert(g *model.TaskGroup) *model.TaskGroup {
	c := *g
	c.Count, c.RestartPolicy, c.ReschedulePolicy, c.Update, c.Services = 0, nil, nil, nil, nil
	c.Constraints, c.Scaling, c.Migrate, c.Disconnect = nil, nil, nil, nil
	c.Tasks = make([]*model.Task, len(g.Tasks))
	for i, t := range g.Tasks {
		tc := *t
		tc.RestartPolicy, tc.Services, tc.Constraints = nil, nil, nil
		c.Tasks[i] = &tc
	}
	return &c
}

// sameJSON compares by value whatever went through encodings that turn absent
// into empty and ints into floats.
func sameJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}
