package diff

import (
	"cmp"
	"maps"
	"slices"
	"strconv"

	"atoll/model"
)

// Type says how something differs.
type Type string

// The types. Something that is None is there as context.
const (
	None    Type = "None"
	Added   Type = "Added"
	Deleted Type = "Deleted"
	Edited  Type = "Edited"
)

// Job is how two versions of a job differ.
type Job struct {
	Type       Type
	ID         string
	Fields     []*Field
	Objects    []*Object
	TaskGroups []*TaskGroup
}

// TaskGroup is how a group differs.
type TaskGroup struct {
	Type    Type
	Name    string
	Fields  []*Field
	Objects []*Object
	Tasks   []*Task
	// Updates counts what becomes of the group's allocations, by words of
	// Annotate's.
	Updates map[string]uint64
}

// Task is how a task differs. Annotations say what that forces.
type Task struct {
	Type        Type
	Name        string
	Fields      []*Field
	Objects     []*Object
	Annotations []string
}

// Object is how a block differs.
type Object struct {
	Type    Type
	Name    string
	Fields  []*Field
	Objects []*Object
}

// Field is how a value differs; one that is not there is "".
type Field struct {
	Type        Type
	Name        string
	Old, New    string
	Annotations []string
}

// fate is how something differs that is absent on one side, or changed.
func fate(before, after, changed bool) Type {
	switch {
	case !before && after:
		return Added
	case before && !after:
		return Deleted
	case changed:
		return Edited
	}
	return None
}

// What the server sets, and what Canonicalize has written into every group: it
// says nothing more at the job.
var aside = map[string]bool{
	"ID": true, "TaskGroups": true, "Update": true, "Migrate": true, "Reschedule": true,
	"Status": true, "StatusDescription": true, "Stable": true, "Version": true, "VersionTag": true, "SubmitTime": true,
	"CreateIndex": true, "ModifyIndex": true, "JobModifyIndex": true,
}

// Jobs tells what differs between two canonical versions of a job; either may be
// nil. With contextual, the groups, tasks and fields of blocks that do not differ
// are there too, as None, but for fields that say nothing.
func Jobs(before, after *model.Job, contextual bool) *Job {
	out := &Job{}
	var was, is []*model.TaskGroup
	if before != nil {
		out.ID, was = before.ID, before.TaskGroups
	}
	if after != nil {
		out.ID, is = after.ID, after.TaskGroups
	}
	var changed bool
	out.Fields, out.Objects, changed = compare(treeOf(before, aside), treeOf(after, aside), contextual)
	each(was, is, func(g *model.TaskGroup) string { return g.Name }, func(was, is *model.TaskGroup) {
		g := groups(was, is, contextual)
		changed = changed || g.Type != None
		if g.Type != None || contextual {
			out.TaskGroups = append(out.TaskGroups, g)
		}
	})
	out.Type = fate(before != nil, after != nil, changed)
	return out
}

func groups(before, after *model.TaskGroup, contextual bool) *TaskGroup {
	out := &TaskGroup{}
	var was, is []*model.Task
	if before != nil {
		out.Name, was = before.Name, before.Tasks
	}
	if after != nil {
		out.Name, is = after.Name, after.Tasks
	}
	own := map[string]bool{"Name": true, "Tasks": true}
	var changed bool
	out.Fields, out.Objects, changed = compare(treeOf(before, own), treeOf(after, own), contextual)
	each(was, is, func(t *model.Task) string { return t.Name }, func(was, is *model.Task) {
		t := tasks(was, is, contextual)
		changed = changed || t.Type != None
		if t.Type != None || contextual {
			out.Tasks = append(out.Tasks, t)
		}
	})
	out.Type = fate(before != nil, after != nil, changed)
	return out
}

func tasks(before, after *model.Task, contextual bool) *Task {
	out := &Task{}
	if before != nil {
		out.Name = before.Name
	}
	if after != nil {
		out.Name = after.Name
	}
	own := map[string]bool{"Name": true}
	var changed bool
	out.Fields, out.Objects, changed = compare(treeOf(before, own), treeOf(after, own), contextual)
	out.Type = fate(before != nil, after != nil, changed)
	return out
}

// each calls f with what has the same name on both sides, by name; nil stands
// for what is absent on one.
func each[T any](before, after []*T, name func(*T) string, f func(before, after *T)) {
	type pair struct{ before, after *T }
	all := make(map[string]pair)
	for _, v := range before {
		all[name(v)] = pair{before: v}
	}
	for _, v := range after {
		p := all[name(v)]
		p.after = v
		all[name(v)] = p
	}
	for _, n := range slices.Sorted(maps.Keys(all)) {
		f(all[n].before, all[n].after)
	}
}

// compare tells what differs between two trees, of which either may be nil.
// Fields of these trees themselves have no context.
func compare(before, after *tree, contextual bool) (fields []*Field, objects []*Object, changed bool) {
	return fieldsOf(before, after, false), objectsOf(before, after, contextual), !same(before, after)
}

func same(a, b *tree) bool { return a.digest() == b.digest() }

func fieldsOf(before, after *tree, contextual bool) (out []*Field) {
	was, is := before.byKey(), after.byKey()
	keys := maps.Clone(was)
	maps.Copy(keys, is)
	for key, leaf := range keys {
		f := &Field{Name: leaf.name, Old: was[key].value, New: is[key].value}
		f.Type = fate(f.Old != "", f.New != "", f.Old != f.New)
		if f.Type != None || contextual && f.New != "" {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b *Field) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Old, b.Old), cmp.Compare(a.New, b.New))
	})
	return out
}

func objectsOf(before, after *tree, contextual bool) (out []*Object) {
	for _, p := range pairs(before, after) {
		o := &Object{Name: p.name, Type: fate(p.before != nil, p.after != nil, !same(p.before, p.after))}
		if o.Type == None {
			continue
		}
		o.Fields, o.Objects = fieldsOf(p.before, p.after, contextual), objectsOf(p.before, p.after, contextual)
		out = append(out, o)
	}
	return out
}

// pair is a part on both sides.
type pair struct {
	name          string
	before, after *tree
}

// pairs finds for each part of one tree what it was or became in the other: the
// part of the same name and key or, where parts have no key, an equal one. When
// then one is left on each side, that is the same part, changed.
func pairs(before, after *tree) (out []pair) {
	was, is := before.byName(), after.byName()
	names := maps.Clone(was)
	maps.Copy(names, is)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		var found []pair
		left := make(map[string][]*tree)
		for _, p := range was[name] {
			left[p.identity()] = append(left[p.identity()], p.tree)
		}
		var added []part
		for _, p := range is[name] {
			id := p.identity()
			if len(left[id]) == 0 {
				added = append(added, p)
				continue
			}
			found = append(found, pair{name, left[id][0], p.tree})
			left[id] = left[id][1:]
		}
		var deleted []part
		for _, p := range was[name] {
			if id := p.identity(); len(left[id]) > 0 {
				deleted = append(deleted, part{name, p.key, left[id][0]})
				left[id] = left[id][1:]
			}
		}
		if len(deleted) == 1 && len(added) == 1 && deleted[0].key == "" && added[0].key == "" {
			found = append(found, pair{name, deleted[0].tree, added[0].tree})
			deleted, added = nil, nil
		}
		for _, p := range deleted {
			found = append(found, pair{name, p.tree, nil})
		}
		for _, p := range added {
			found = append(found, pair{name, nil, p.tree})
		}
		out = append(out, found...)
	}
	return out
}

// What a difference forces, and what becomes of allocations.
const (
	forcesCreate  = "forces create"
	forcesDestroy = "forces destroy"
	forcesInPlace = "forces in-place update"
	forcesReplace = "forces create/destroy update"
)

// Annotate notes in d what an evaluation of the newer version would do: desired
// counts it by group, and inPlace says of a task that is in both versions whether
// what runs of it can go on.
func Annotate(d *Job, desired map[string]*model.DesiredUpdates, inPlace func(group, task string) bool) {
	for _, g := range d.TaskGroups {
		if u := desired[g.Name]; u != nil {
			g.Updates = updates(u)
		}
		for _, f := range g.Fields {
			if f.Name != "Count" || f.Type == None {
				continue
			}
			was, _ := strconv.Atoi(f.Old)
			is, _ := strconv.Atoi(f.New)
			switch {
			case is > was:
				f.Annotations = []string{forcesCreate}
			case is < was:
				f.Annotations = []string{forcesDestroy}
			}
		}
		for _, t := range g.Tasks {
			switch {
			case t.Type == None:
			case g.Type == Added:
				t.Annotations = []string{forcesCreate}
			case g.Type == Deleted:
				t.Annotations = []string{forcesDestroy}
			case t.Type == Edited && inPlace(g.Name, t.Name):
				t.Annotations = []string{forcesInPlace}
			default:
				t.Annotations = []string{forcesReplace}
			}
		}
	}
}

func updates(u *model.DesiredUpdates) map[string]uint64 {
	out := make(map[string]uint64)
	for word, n := range map[string]uint64{
		"ignore": u.Ignore, "create": u.Place, "destroy": u.Stop, "migrate": u.Migrate, "canary": u.Canary,
		"in-place update": u.InPlaceUpdate, "create/destroy update": u.DestructiveUpdate, "preemptions": u.Preemptions,
		"disconnect": u.Disconnect, "reconnect": u.Reconnect, "reschedule now": u.RescheduleNow, "reschedule later": u.RescheduleLater,
	} {
		if n > 0 {
			out[word] = n
		}
	}
	return out
}
