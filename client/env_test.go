package client

import (
	"reflect"
	"testing"

	"atoll/model"
)

func TestTheEnvironmentThatJobFilesExpect(t *testing.T) {
	task := &model.Task{
		Name: "redis", Driver: "docker", Meta: map[string]string{"team-name": "reef"},
		Config:    map[string]any{"image": "redis:${meta.redis}", "args": []any{"--port", "${NOMAD_PORT_db}", "${unknown.thing}"}, "port_map": []any{map[string]any{"db": 6379}}},
		Resources: &model.Resources{CPU: 500, MemoryMB: 256},
		Env:       map[string]string{"DC": "${node.datacenter}", "KERNEL": "${attr.kernel.name}", "ME": `${env["NOMAD_TASK_NAME"]}`, "PLAIN": "a$b ${", "NOMAD_DC": "own"},
	}
	job := &model.Job{ID: "cache", Name: "Cache", Region: "eu", TaskGroups: []*model.TaskGroup{{Name: "g", Tasks: []*model.Task{task}, Meta: map[string]string{"k": "group"}}}, Meta: map[string]string{"k": "job"}}
	a := &model.Allocation{
		ID: "12345678-aaaa-bbbb-cccc-1234567890ab", Name: "cache.g[4]", JobID: "cache", Namespace: "default", TaskGroup: "g", Job: job,
		AllocatedResources: &model.AllocatedResources{
			Tasks: map[string]*model.AllocatedTaskResources{"redis": {
				Cpu: model.AllocatedCpuResources{CpuShares: 500}, Memory: model.AllocatedMemoryResources{MemoryMB: 256},
				Networks: []*model.NetworkResource{{IP: "10.0.0.7", DynamicPorts: []model.Port{{Label: "db", Value: 20005}}}},
			}},
			Shared: model.AllocatedSharedResources{Ports: []model.PortMapping{{Label: "http", Value: 20001, To: 80, HostIP: "10.0.0.7"}, {Label: "same", Value: 20002, HostIP: "10.0.0.7"}}},
		},
	}
	n := &model.Node{ID: "n-id", Name: "n1", Datacenter: "dc9", Attributes: map[string]string{"kernel.name": "linux"}, Meta: map[string]string{"redis": "3.2"}}
	d := dirs{"/data/alloc/x"}
	got := driverTask(a, task, d, true, n, 2)
	for key, want := range map[string]string{
		"NOMAD_ALLOC_DIR": "/alloc", "NOMAD_TASK_DIR": "/local", "NOMAD_SECRETS_DIR": "/secrets",
		"NOMAD_ALLOC_ID": a.ID, "NOMAD_SHORT_ALLOC_ID": "12345678", "NOMAD_ALLOC_NAME": "cache.g[4]", "NOMAD_ALLOC_INDEX": "4",
		"NOMAD_TASK_NAME": "redis", "NOMAD_GROUP_NAME": "g", "NOMAD_JOB_ID": "cache", "NOMAD_JOB_NAME": "Cache", "NOMAD_REGION": "eu", "NOMAD_NAMESPACE": "default",
		"NOMAD_CPU_LIMIT": "500", "NOMAD_MEMORY_LIMIT": "256", "NOMAD_META_k": "group", "NOMAD_META_K": "group", "NOMAD_META_team-name": "reef", "NOMAD_META_TEAM_NAME": "reef",
		"NOMAD_PORT_db": "6379", "NOMAD_HOST_PORT_db": "20005", "NOMAD_ADDR_db": "10.0.0.7:20005", "NOMAD_IP_db": "10.0.0.7",
		"NOMAD_PORT_http": "80", "NOMAD_HOST_PORT_http": "20001", "NOMAD_HOST_ADDR_http": "10.0.0.7:20001", "NOMAD_PORT_same": "20002", "NOMAD_ALLOC_PORT_same": "20002",
		"DC": "dc9", "KERNEL": "linux", "ME": "redis", "PLAIN": "a$b ${", "NOMAD_DC": "own",
	} {
		if got.Env[key] != want {
			t.Errorf("%s is %q, want %q", key, got.Env[key], want)
		}
	}
	if got.ID != a.ID+".redis.2" || got.Config["image"] != "redis:3.2" || !reflect.DeepEqual(got.Config["args"], []any{"--port", "6379", "${unknown.thing}"}) {
		t.Errorf("task %s with %v", got.ID, got.Config)
	}
	if task.Config["image"] != "redis:${meta.redis}" {
		t.Error("the job's own configuration was changed")
	}
	if plain := driverTask(a, task, d, false, n, 2); plain.Env["NOMAD_TASK_DIR"] != "/data/alloc/x/redis/local" || plain.Env["NOMAD_ALLOC_DIR"] != "/data/alloc/x/alloc" {
		t.Errorf("directories %q, %q", plain.Env["NOMAD_TASK_DIR"], plain.Env["NOMAD_ALLOC_DIR"])
	}
}

func TestADispatchedJobHasAllItsKeys(t *testing.T) {
	task := &model.Task{Name: "t", Driver: "raw_exec"}
	job := &model.Job{
		ID: "p/dispatch-1-0", ParentID: "p", Dispatched: true, Meta: map[string]string{"who": "me"}, TaskGroups: []*model.TaskGroup{{Name: "g", Tasks: []*model.Task{task}}},
		ParameterizedJob: &model.ParameterizedJobConfig{MetaRequired: []string{"who"}, MetaOptional: []string{"size-of"}},
	}
	a := &model.Allocation{ID: "12345678-aaaa-bbbb-cccc-1234567890ab", Name: "g[0]", JobID: job.ID, TaskGroup: "g", Job: job}
	env := driverTask(a, task, dirs{"/x"}, false, &model.Node{}, 1).Env
	for key, want := range map[string]string{"NOMAD_META_who": "me", "NOMAD_META_WHO": "me", "NOMAD_META_size-of": "", "NOMAD_META_SIZE_OF": "", "NOMAD_JOB_PARENT_ID": "p"} {
		if got, there := env[key]; !there || got != want {
			t.Errorf("%s is %q, %v; want %q", key, got, there, want)
		}
	}
}
