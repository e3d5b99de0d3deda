package docker

import (
	"fmt"
	"strconv"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/go-connections/nat"

	"atoll/drivers"
	"atoll/model"
)

// Name is the driver's in job files.
const Name = "docker"

// Kind is the driver's.
var Kind = drivers.Kind{Name: Name, Check: check, OwnRoot: true}

// settings are a task's configuration, by Nomad's names.
type settings struct {
	image       string
	command     string
	args        []string
	entrypoint  []string
	workDir     string
	hostname    string
	networkMode string
	forcePull   bool
	init        bool
	readonly    bool
	ports       []string
	portMap     map[string]int
	labels      map[string]string
	extraHosts  []string
	dnsServers  []string
}

func check(t *model.Task) error {
	_, err := read(t.Config)
	return err
}

func read(config map[string]any) (*settings, error) {
	s := drivers.NewSettings(Name, config)
	out := &settings{
		image: s.String("image"), command: s.String("command"), args: s.Strings("args"), entrypoint: s.Strings("entrypoint"),
		workDir: s.String("work_dir"), hostname: s.String("hostname"), networkMode: s.String("network_mode"),
		forcePull: s.Bool("force_pull"), init: s.Bool("init"), readonly: s.Bool("readonly_rootfs"),
		ports: s.Strings("ports"), portMap: make(map[string]int), labels: s.Map("labels"),
		extraHosts: s.Strings("extra_hosts"), dnsServers: s.Strings("dns_servers"),
	}
	if out.image == "" {
		s.Fault("image", "it is missing; name one such as \"redis:7\"")
	}
	for label, text := range s.Map("port_map") {
		port, err := strconv.Atoi(text)
		if err != nil || port < 1 || port > 65535 {
			s.Fault("port_map", "%s = %q: ports are from 1 to 65535", label, text)
		}
		out.portMap[label] = port
	}
	if len(out.ports) > 0 && len(out.portMap) > 0 {
		s.Fault("port_map", "it is the old form of ports; give one of them")
	}
	switch out.networkMode {
	case "", "default", "bridge", "host", "none":
	default:
		s.Fault("network_mode", "%q is none of bridge, host, none", out.networkMode)
	}
	s.Unsupported("advertise_ipv6_address", "auth", "auth_soft_fail", "cap_add", "cap_drop", "cgroupns", "container_exists_attempts",
		"cpu_cfs_period", "cpu_hard_limit", "cpuset_cpus", "devices", "dns_options", "dns_search_domains", "group_add", "healthchecks",
		"image_pull_timeout", "interactive", "ipc_mode", "ipv4_address", "ipv6_address", "isolation", "load", "logging", "mac_address",
		"memory_hard_limit", "mount", "mounts", "network_aliases", "oom_score_adj", "pid_mode", "pids_limit", "privileged", "runtime",
		"security_opt", "shm_size", "storage_opt", "sysctl", "tty", "ulimit", "userns_mode", "uts_mode", "volume_driver", "volumes")
	return out, s.Err()
}

// publish maps the task's ports, on tcp and udp both.
func (set *settings) publish(t *drivers.Task) (nat.PortSet, nat.PortMap, error) {
	exposed, bound := make(nat.PortSet), make(nat.PortMap)
	add := func(p drivers.Port, inside int) {
		for _, proto := range []string{"tcp", "udp"} {
			at := nat.Port(fmt.Sprintf("%d/%s", inside, proto))
			exposed[at] = struct{}{}
			bound[at] = append(bound[at], nat.PortBinding{HostIP: p.HostIP, HostPort: strconv.Itoa(p.Value)})
		}
	}
	find := func(label string, legacy bool) (drivers.Port, bool) {
		for _, p := range t.Ports {
			if p.Label == label && p.Legacy == legacy {
				return p, true
			}
		}
		return drivers.Port{}, false
	}
	for _, label := range set.ports {
		p, ok := find(label, false)
		if !ok {
			return nil, nil, fmt.Errorf("config.ports: the group's network has no port %q", label)
		}
		inside := p.Value
		if p.To > 0 {
			inside = p.To
		}
		add(p, inside)
	}
	for label := range set.portMap {
		if _, ok := find(label, true); ok {
			continue
		}
		if _, ok := find(label, false); ok {
			return nil, nil, fmt.Errorf("config.port_map: port %q is the group's; map it by ports = [%q] and the port's to", label, label)
		}
		return nil, nil, fmt.Errorf("config.port_map: the task's network has no port %q", label)
	}
	for _, p := range t.Ports {
		if p.Legacy {
			inside := p.Value
			if to, ok := set.portMap[p.Label]; ok {
				inside = to
			}
			add(p, inside)
		}
	}
	return exposed, bound, nil
}

// container is the task in the engine's terms.
func (set *settings) container(t *drivers.Task) (*container.Config, *container.HostConfig, error) {
	exposed, bound, err := set.publish(t)
	if err != nil {
		return nil, nil, err
	}
	cfg := &container.Config{
		Image: set.image, Entrypoint: set.entrypoint, WorkingDir: set.workDir, Hostname: set.hostname, User: t.User,
		ExposedPorts: exposed, StopSignal: t.KillSignal, Labels: map[string]string{
			// The first is the one that Nomad's tools look for.
			"com.hashicorp.nomad.alloc_id": t.AllocID,
			labelTask:                      t.ID,
		},
	}
	if set.command != "" {
		cfg.Cmd = append([]string{set.command}, set.args...)
	} else if len(set.args) > 0 {
		cfg.Cmd = set.args
	}
	for k, v := range t.Env {
		cfg.Env = append(cfg.Env, k+"="+v)
	}
	for k, v := range set.labels {
		cfg.Labels[k] = v
	}
	host := &container.HostConfig{
		PortBindings: bound, ReadonlyRootfs: set.readonly, ExtraHosts: set.extraHosts, DNS: set.dnsServers,
		NetworkMode: container.NetworkMode(set.networkMode),
		Binds: []string{
			t.AllocDir + ":/alloc", t.Dir + "/local:/local", t.Dir + "/secrets:/secrets",
		},
		// The engine keeps enough for the agent to be away for a while.
		LogConfig: container.LogConfig{Type: "json-file", Config: map[string]string{"max-file": "2", "max-size": "10m"}},
	}
	if set.init {
		host.Init = &set.init
	}
	const mib = 1 << 20
	host.CPUShares = t.CPU
	host.Memory = t.MemoryMB * mib
	if t.MemoryMaxMB > 0 {
		host.MemoryReservation, host.Memory = t.MemoryMB*mib, t.MemoryMaxMB*mib
	}
	host.MemorySwap = host.Memory
	return cfg, host, nil
}
