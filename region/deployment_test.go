package region

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"atoll/model"
	"atoll/region/heartbeat"
)

// A version goes on being rolled out, or is found not to be healthy, whoever leads.
func TestDeploymentsOutliveTheLeader(t *testing.T) {
	const count, maxParallel = 10, 2
	for _, c := range []struct {
		name string
		// healthy is what nodes say of the second version's allocations; nil is
		// that they run, and nothing of their health.
		healthy *bool
		// status and versions are what comes of it: of the deployment, and of the
		// job.
		status, says string
		versions     uint64
	}{
		{"all are healthy", new(true), model.DeploymentSuccessful, "", 2},
		{"the canary never is", nil, model.DeploymentFailed, "reverting to version 0 of the job", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			servers := startCell(t, heartbeat.Config{MinTTL: 3 * time.Second, Grace: 10 * time.Second})
			for range 2 {
				node, secret := aNode("dc1")
				runJudgingNode(t, servers, node, secret, func(a *model.Allocation) *model.AllocDeploymentStatus {
					s := &model.AllocDeploymentStatus{Healthy: new(true), Timestamp: time.Now()}
					if a.Job.Meta["v"] == "1" {
						s.Healthy = c.healthy
					}
					return s
				})
			}
			job := func(v string) *model.Job {
				j := aJob("web", count, "dc1")
				g := j.TaskGroups[0]
				g.Tasks[0].Resources.CPU, g.Tasks[0].Resources.MemoryMB = 10, 10
				up := model.NewUpdateStrategy()
				up.MaxParallel, up.Canary, up.HealthCheck = maxParallel, 1, model.HealthTaskStates
				up.MinHealthyTime, up.HealthyDeadline, up.ProgressDeadline = 10*time.Millisecond, 2*time.Second, 3*time.Second
				up.AutoPromote, up.AutoPromoteGiven, up.AutoRevert, up.AutoRevertGiven = true, true, true, true
				g.Update = up
				j.Meta = map[string]string{"v": v}
				return j
			}
			key := model.JobID{Namespace: model.DefaultNamespace, ID: "web"}
			// of counts what runs of a version in a server's state.
			of := func(s *testServer, version uint64) (n int) {
				rows, _ := s.cell.Snapshot().AllocsOfJob(nil, key)
				for r := range rows {
					if r.Client == model.ClientRunning && !r.ServerTerminal() && r.Shared.Job.Version == version {
						n++
					}
				}
				return n
			}
			leader := leaderOf(t, servers)
			register(t, leader.RPC(), "", job("0"))
			wait(t, "the first version runs", func() error {
				if d := leader.cell.Snapshot().LatestDeployment(nil, key); d == nil || d.Status != model.DeploymentSuccessful || of(leader, 0) != count {
					return fmt.Errorf("%d run, %+v", of(leader, 0), d)
				}
				return nil
			})
			register(t, leader.RPC(), "", job("1"))
			wait(t, "the second has begun", func() error {
				if of(leader, 1) == 0 {
					return fmt.Errorf("none of it runs")
				}
				return nil
			})
			second := leader.cell.Snapshot().LatestDeployment(nil, key).ID
			leader.kill()
			var rest []*testServer
			for _, s := range servers {
				if s != leader {
					rest = append(rest, s)
				}
			}
			next := leaderOf(t, rest)
			wait(t, "the deployment ends", func() error {
				d := next.cell.Snapshot().Deployment(nil, second)
				if d == nil || d.Status != c.status {
					return fmt.Errorf("it is %+v", d)
				}
				return nil
			})
			wait(t, "all run", func() error {
				if n := of(next, c.versions-1); n != count {
					return fmt.Errorf("%d of version %d", n, c.versions-1)
				}
				return nil
			})
			if d := next.cell.Snapshot().Deployment(nil, second); !strings.Contains(d.StatusDescription, c.says) {
				t.Errorf("the deployment says %q, and should %q", d.StatusDescription, c.says)
			}
		})
	}
}
