package state

import (
	"reflect"

	memdb "github.com/hashicorp/go-memdb"

	"atoll/model"
)

// table is one of memdb's tables: how it is indexed, and as which record its
// rows stand in snapshots. To add one: a file of its own with the row type and
// the methods of Txn and Snapshot that know it, a record number in snapshot.go,
// and a line in tables. A test fails for a table that a snapshot forgets.
type table struct {
	name    string
	indexes map[string]*memdb.IndexSchema
	rec     byte
	// row is the type of its rows, for the test that fills each field.
	row     reflect.Type
	persist func(*persister, *memdb.Txn)
	restore func(*restorer, []byte) error
}

// tableOf declares a table whose rows are *T.
func tableOf[T any](name string, rec byte, id memdb.Indexer, others ...*memdb.IndexSchema) table {
	t := table{
		name: name, rec: rec, row: reflect.TypeFor[T](),
		indexes: map[string]*memdb.IndexSchema{byID: {Name: byID, Unique: true, Indexer: id}},
		persist: func(p *persister, tx *memdb.Txn) { putAll[*T](p, tx, rec, name) },
		restore: func(r *restorer, body []byte) error { return restoreRow[T](r, name, body) },
	}
	for _, ix := range others {
		t.indexes[ix.Name] = ix
	}
	return t
}

// Names of tables and indexes.
const (
	tableAllocs      = "allocs"
	tableIndexes     = "indexes"
	tableJobs        = "jobs"
	tableVersions    = "job_versions"
	tableNodes       = "nodes"
	tableEvals       = "evals"
	tableCell        = "cell"
	tableRequests    = "requests"
	tableAutopilot   = "autopilot_config"
	tableCapacity    = "capacity"
	tableDeployments = "deployments"
	tableNamespaces  = "namespaces"
	tableScaling     = "job_scaling"
	tableRollouts    = "rollouts"
	tableParents     = "parents"
	tableScheduler   = "scheduler_config"
	// last is the index row of any change.
	last = ""

	byID  = "id"
	byJob = "job"
	// byStatus lets the broker read pending evaluations without the others,
	// and deployments that go on without those that are over.
	byStatus = "status"
	byClass  = "class"
	// byOpen finds a job's evaluations that are not over among the many that
	// are.
	byOpen = "open"
	// byType finds the jobs that run on every node when a node comes.
	byType = "type"
	// byLaunch finds the jobs that are launched at times, byToken the children
	// that were dispatched for a token.
	byLaunch = "launch"
	byToken  = "token"
)

// tables are all but that of allocations, in the order in which they stand in
// snapshots.
var tables = []table{
	tableOf[Cell](tableCell, recCell, singleton{}),
	tableOf[indexRow](tableIndexes, recIndex, byText[*indexRow](func(r *indexRow) string { return r.Table })),
	tableOf[model.Job](tableJobs, recJob, fields("Namespace", "ID"),
		&memdb.IndexSchema{Name: byType, Indexer: byText[*model.Job](func(j *model.Job) string { return j.Type })},
		&memdb.IndexSchema{Name: byLaunch, AllowMissing: true, Indexer: some[*model.Job](launched)},
		&memdb.IndexSchema{Name: byToken, AllowMissing: true, Indexer: some[*model.Job](dispatched)}),
	tableOf[model.Job](tableVersions, recJobVersion, fields("Namespace", "ID", "Version")),
	tableOf[model.Node](tableNodes, recNode, fields("ID"),
		&memdb.IndexSchema{Name: byClass, Indexer: byText[*model.Node](func(n *model.Node) string { return n.ComputedClass })}),
	tableOf[Capacity](tableCapacity, recCapacity, byText[*Capacity](func(c *Capacity) string { return c.Class })),
	tableOf[model.Evaluation](tableEvals, recEval, fields("ID"),
		&memdb.IndexSchema{Name: byJob, Indexer: fields("Namespace", "JobID")},
		&memdb.IndexSchema{Name: byOpen, AllowMissing: true, Indexer: openOnly{&memdb.CompoundIndex{Indexes: []memdb.Indexer{
			&memdb.StringFieldIndex{Field: "Namespace"}, &memdb.StringFieldIndex{Field: "JobID"},
		}}}},
		&memdb.IndexSchema{Name: byStatus, Indexer: fields("Status")}),
	tableOf[model.Deployment](tableDeployments, recDeployment, fields("ID"),
		&memdb.IndexSchema{Name: byJob, Indexer: fields("Namespace", "JobID")},
		&memdb.IndexSchema{Name: byStatus, Indexer: fields("Status")}),
	tableOf[model.Namespace](tableNamespaces, recNamespace, fields("Name")),
	tableOf[model.JobScaling](tableScaling, recScaling, fields("Namespace", "JobID")),
	tableOf[model.Rollout](tableRollouts, recRollout, fields("Namespace", "JobID")),
	tableOf[Parent](tableParents, recParent, fields("Namespace", "ID")),
	requestsTable(),
	tableOf[model.AutopilotConfig](tableAutopilot, recAutopilot, singleton{}),
	tableOf[model.SchedulerConfig](tableScheduler, recScheduler, singleton{}),
}

// indexed are the names of index rows that a change may write, in this order,
// so that every server does the same.
var indexed = func() []string {
	names := []string{last, tableAllocs}
	for _, t := range tables {
		if t.name != tableIndexes {
			names = append(names, t.name)
		}
	}
	return names
}()

func schema() *memdb.DBSchema {
	s := &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{
		tableAllocs: {Name: tableAllocs, Indexes: map[string]*memdb.IndexSchema{byID: {Name: byID, Unique: true, Indexer: singleton{}}}},
	}}
	for _, t := range tables {
		s.Tables[t.name] = &memdb.TableSchema{Name: t.name, Indexes: t.indexes}
	}
	return s
}

// fields indexes rows by fields of theirs, which are strings but for Version.
func fields(names ...string) memdb.Indexer {
	var all []memdb.Indexer
	for _, name := range names {
		if name == "Version" {
			all = append(all, &memdb.UintFieldIndex{Field: name})
			continue
		}
		all = append(all, &memdb.StringFieldIndex{Field: name})
	}
	if len(all) == 1 {
		return all[0]
	}
	return &memdb.CompoundIndex{Indexes: all}
}

// openOnly leaves evaluations out that are over.
type openOnly struct{ *memdb.CompoundIndex }

func (o openOnly) FromObject(row any) (bool, []byte, error) {
	if row.(*model.Evaluation).Terminal() {
		return false, nil, nil
	}
	return o.CompoundIndex.FromObject(row)
}

// singleton indexes a table of one row.
type singleton struct{}

func (singleton) FromArgs(...any) ([]byte, error)      { return []byte{1}, nil }
func (singleton) FromObject(any) (bool, []byte, error) { return true, []byte{1}, nil }

// byText indexes rows by a text that may be empty, which memdb's own index of
// strings refuses.
type byText[T any] func(T) string

func (byText[T]) FromArgs(args ...any) ([]byte, error) {
	return []byte(args[0].(string) + "\x00"), nil
}

func (f byText[T]) FromObject(row any) (bool, []byte, error) {
	return true, []byte(f(row.(T)) + "\x00"), nil
}

// some indexes those rows that have texts to be found by.
type some[T any] func(T) []string

func (some[T]) FromArgs(args ...any) ([]byte, error) {
	var key []byte
	for _, a := range args {
		key = append(append(key, a.(string)...), 0)
	}
	return key, nil
}

func (f some[T]) FromObject(row any) (bool, []byte, error) {
	var key []byte
	for _, text := range f(row.(T)) {
		key = append(append(key, text...), 0)
	}
	return key != nil, key, nil
}
