package state

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"atoll/model"
)

// BenchmarkReap deletes 100,000 ended allocations of one job and as many
// evaluations in batches as the collector makes them:
//
//	go test -run '^$' -bench Reap -benchtime 1x ./cell/state
func BenchmarkReap(b *testing.B) {
	const count, batch = 100_000, 512
	for _, jobs := range []int{1, 1000} {
		b.Run(fmt.Sprintf("jobs=%d", jobs), func(b *testing.B) {
			for b.Loop() {
				s := newStore(b)
				index := uint64(0)
				next := func(f func(*Txn) error) {
					index++
					write(b, s, index, f)
				}
				var nodes []model.UUID
				for i := range 1000 {
					n, id := node(fmt.Sprint(i))
					nodes = append(nodes, id)
					next(func(tx *Txn) error { return tx.UpsertNode(n, 1) })
				}
				var allocs, evals []model.UUID
				for i := range jobs {
					var j *model.Job
					next(func(tx *Txn) (err error) { j, err = tx.UpsertJob(job(fmt.Sprint("j", i))); return err })
					for range max(1, count/jobs/1000) {
						p := place(j, nodes, min(1000, count/jobs), nil)
						next(func(tx *Txn) error { _, err := tx.ApplyPlan(p); return err })
					}
				}
				byNode := make(map[model.UUID][]*model.AllocUpdate)
				for r := range s.Snapshot().Allocs(nil, "", model.UUID{}) {
					allocs = append(allocs, r.ID)
					byNode[r.NodeID] = append(byNode[r.NodeID], &model.AllocUpdate{ID: r.ID.String(), ClientStatus: model.AllocClientComplete})
				}
				for _, n := range nodes {
					next(func(tx *Txn) error { _, err := tx.ReportAllocs(n, byNode[n], 1); return err })
				}
				for range count / 1000 {
					var some []*model.Evaluation
					for range 1000 {
						id := model.NewUUID(nil)
						evals = append(evals, id)
						some = append(some, &model.Evaluation{ID: id.String(), Namespace: "default", JobID: fmt.Sprint("j", len(evals)%jobs), Status: model.EvalComplete})
					}
					next(func(tx *Txn) error { return tx.UpsertEvals(some) })
				}
				timed := func(name string, ids []model.UUID, reap func([]model.UUID) *Reap) {
					worst, start := time.Duration(0), time.Now()
					for ids := range slices.Chunk(ids, batch) {
						one := time.Now()
						r := reap(ids)
						r.SnapshotIndex = index
						next(func(tx *Txn) error { _, err := tx.Reap(r); return err })
						worst = max(worst, time.Since(one))
					}
					b.ReportMetric(float64(len(ids))/time.Since(start).Seconds(), name+"/s")
					b.ReportMetric(worst.Seconds()*1e3, "ms-worst-batch-"+name)
				}
				timed("allocs", allocs, func(ids []model.UUID) *Reap { return &Reap{Allocs: ids} })
				timed("evals", evals, func(ids []model.UUID) *Reap { return &Reap{Evals: ids} })
				if n := s.Snapshot().AllocCount(); n != 0 {
					b.Fatalf("%d are left", n)
				}
			}
		})
	}
}
