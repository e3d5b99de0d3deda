package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// setter puts an entry's value into a configuration.
type setter func(*Config, entry) error

// settings leads from the path of each key that has an effect to what sets it;
// nil marks a key that Nomad has too, and that has none by design.
var settings = map[string]setter{
	"region":                      text(func(c *Config) *string { return &c.Region }),
	"datacenter":                  text(func(c *Config) *string { return &c.Datacenter }),
	"name":                        text(func(c *Config) *string { return &c.Name }),
	"data_dir":                    text(func(c *Config) *string { return &c.DataDir }),
	"log_level":                   text(func(c *Config) *string { return &c.LogLevel }),
	"log_json":                    truth(func(c *Config) *bool { return &c.LogJSON }),
	"bind_addr":                   text(func(c *Config) *string { return &c.BindAddr }),
	"insecure":                    truth(func(c *Config) *bool { return &c.Insecure }),
	"leave_on_interrupt":          truth(func(c *Config) *bool { return &c.LeaveOnInterrupt }),
	"leave_on_terminate":          truth(func(c *Config) *bool { return &c.LeaveOnTerminate }),
	"disable_update_check":        quiet, // Atoll never asks anybody
	"disable_anonymous_signature": quiet,

	"addresses.http": text(func(c *Config) *string { return &c.Addresses.HTTP }),
	"addresses.rpc":  text(func(c *Config) *string { return &c.Addresses.RPC }),
	"addresses.serf": text(func(c *Config) *string { return &c.Addresses.Serf }),
	"ports.http":     number(func(c *Config) *int { return &c.Ports.HTTP }),
	"ports.rpc":      number(func(c *Config) *int { return &c.Ports.RPC }),
	"ports.serf":     number(func(c *Config) *int { return &c.Ports.Serf }),
	"advertise.http": text(func(c *Config) *string { return &c.Advertise.HTTP }),
	"advertise.rpc":  text(func(c *Config) *string { return &c.Advertise.RPC }),
	"advertise.serf": text(func(c *Config) *string { return &c.Advertise.Serf }),

	"server.enabled":                    truth(func(c *Config) *bool { return &c.Server.Enabled }),
	"server.bootstrap_expect":           number(func(c *Config) *int { return &c.Server.BootstrapExpect }),
	"server.num_schedulers":             number(func(c *Config) *int { return &c.Server.NumSchedulers }),
	"server.heartbeat_grace":            duration(func(c *Config) *time.Duration { return &c.Server.HeartbeatGrace }),
	"server.min_heartbeat_ttl":          duration(func(c *Config) *time.Duration { return &c.Server.MinHeartbeatTTL }),
	"server.max_heartbeats_per_second":  float(func(c *Config) *float64 { return &c.Server.MaxHeartbeats }),
	"server.raft_snapshot_threshold":    number(func(c *Config) *int { return &c.Server.RaftSnapshotThreshold }),
	"server.retry_join":                 texts(func(c *Config) *[]string { return &c.Server.Join.RetryJoin }),
	"server.start_join":                 texts(func(c *Config) *[]string { return &c.Server.Join.RetryJoin }),
	"server.retry_interval":             duration(func(c *Config) *time.Duration { return &c.Server.Join.RetryInterval }),
	"server.retry_max":                  number(func(c *Config) *int { return &c.Server.Join.RetryMax }),
	"server.server_join.retry_join":     texts(func(c *Config) *[]string { return &c.Server.Join.RetryJoin }),
	"server.server_join.start_join":     texts(func(c *Config) *[]string { return &c.Server.Join.RetryJoin }),
	"server.server_join.retry_interval": duration(func(c *Config) *time.Duration { return &c.Server.Join.RetryInterval }),
	"server.server_join.retry_max":      number(func(c *Config) *int { return &c.Server.Join.RetryMax }),

	"server.eval_gc_threshold":       duration(func(c *Config) *time.Duration { return &c.Server.GC.EvalThreshold }),
	"server.batch_eval_gc_threshold": duration(func(c *Config) *time.Duration { return &c.Server.GC.BatchEvalThreshold }),
	"server.deployment_gc_threshold": duration(func(c *Config) *time.Duration { return &c.Server.GC.DeploymentThreshold }),
	"server.job_gc_threshold":        duration(func(c *Config) *time.Duration { return &c.Server.GC.JobThreshold }),
	"server.job_gc_interval":         duration(func(c *Config) *time.Duration { return &c.Server.GC.Interval }),
	"server.node_gc_threshold":       duration(func(c *Config) *time.Duration { return &c.Server.GC.NodeThreshold }),

	"server.plan_rejection_tracker.enabled":        truth(func(c *Config) *bool { return &c.Server.PlanRejection.Enabled }),
	"server.plan_rejection_tracker.node_threshold": number(func(c *Config) *int { return &c.Server.PlanRejection.Threshold }),
	"server.plan_rejection_tracker.node_window":    duration(func(c *Config) *time.Duration { return &c.Server.PlanRejection.Window }),

	"federation.regions": texts(func(c *Config) *[]string { return &c.Federation.Regions }),

	"client.enabled":                truth(func(c *Config) *bool { return &c.Client.Enabled }),
	"client.servers":                texts(func(c *Config) *[]string { return &c.Client.Servers }),
	"client.server_join.retry_join": texts(func(c *Config) *[]string { return &c.Client.Servers }),
	"client.server_join.start_join": texts(func(c *Config) *[]string { return &c.Client.Servers }),
	// A client tries its servers for ever, with a backoff of its own.
	"client.server_join.retry_interval": quiet,
	"client.server_join.retry_max":      quiet,
	"client.node_class":                 text(func(c *Config) *string { return &c.Client.NodeClass }),
	"client.node_pool":                  text(func(c *Config) *string { return &c.Client.NodePool }),
	"client.state_dir":                  text(func(c *Config) *string { return &c.Client.StateDir }),
	"client.alloc_dir":                  text(func(c *Config) *string { return &c.Client.AllocDir }),
	"client.meta":                       pairs(func(c *Config) map[string]string { return c.Client.Meta }),
	"client.options":                    pairs(func(c *Config) map[string]string { return c.Client.Options }),
	"client.network_interface":          text(func(c *Config) *string { return &c.Client.NetworkInterface }),
	"client.cpu_total_compute":          number(func(c *Config) *int { return &c.Client.CPUTotalCompute }),
	"client.memory_total_mb":            number(func(c *Config) *int { return &c.Client.MemoryTotalMB }),
	"client.disk_total_mb":              number(func(c *Config) *int { return &c.Client.DiskTotalMB }),
	"client.min_dynamic_port":           number(func(c *Config) *int { return &c.Client.MinDynamicPort }),
	"client.max_dynamic_port":           number(func(c *Config) *int { return &c.Client.MaxDynamicPort }),
	"client.max_kill_timeout":           duration(func(c *Config) *time.Duration { return &c.Client.MaxKillTimeout }),
	"client.gc_max_allocs":              number(func(c *Config) *int { return &c.Client.GCMaxAllocs }),
	"client.reserved.cpu":               number(func(c *Config) *int { return &c.Client.Reserved.CPU }),
	"client.reserved.memory":            number(func(c *Config) *int { return &c.Client.Reserved.MemoryMB }),
	"client.reserved.disk":              number(func(c *Config) *int { return &c.Client.Reserved.DiskMB }),
	"client.reserved.reserved_ports":    text(func(c *Config) *string { return &c.Client.Reserved.Ports }),

	"autopilot.cleanup_dead_servers":      truth(func(c *Config) *bool { return &c.Autopilot.CleanupDeadServers }),
	"autopilot.last_contact_threshold":    duration(func(c *Config) *time.Duration { return &c.Autopilot.LastContactThreshold }),
	"autopilot.max_trailing_logs":         whole(func(c *Config) *uint64 { return &c.Autopilot.MaxTrailingLogs }),
	"autopilot.min_quorum":                whole(func(c *Config) *uint { return &c.Autopilot.MinQuorum }),
	"autopilot.server_stabilization_time": duration(func(c *Config) *time.Duration { return &c.Autopilot.ServerStabilizationTime }),

	"telemetry.prometheus_metrics":         truth(func(c *Config) *bool { return &c.Telemetry.PrometheusMetrics }),
	"telemetry.disable_hostname":           truth(func(c *Config) *bool { return &c.Telemetry.DisableHostname }),
	"telemetry.collection_interval":        duration(func(c *Config) *time.Duration { return &c.Telemetry.CollectionInterval }),
	"telemetry.publish_allocation_metrics": nil,
	"telemetry.publish_node_metrics":       nil,

	"plugin": plugins,
}

// noEffect are Nomad's other keys, by block; a star stands for whatever is
// below.
var noEffect = map[string]string{
	"": "log_file log_include_location log_rotate_bytes log_rotate_duration log_rotate_max_files enable_debug " +
		"enable_syslog syslog_facility consul.* consuls.* vault.* vaults.* tls.* acl.* http_api_response_headers.* sentinel.* " +
		"plugin_dir limits.* audit.* ui.* users.* reporting.* keyring.* rpc.* eventlog.* telemetry.* license_path",
	// Of Nomad Enterprise.
	"autopilot.": "enable_redundancy_zones disable_upgrade_migration enable_custom_upgrades",
	"server.": "authoritative_region data_dir protocol_version raft_protocol raft_multiplier enabled_schedulers " +
		"csi_volume_claim_gc_threshold csi_volume_claim_gc_interval csi_plugin_gc_threshold acl_token_gc_threshold " +
		"root_key_gc_interval root_key_gc_threshold root_key_rotation_threshold failover_heartbeat_ttl rejoin_after_leave " +
		"non_voting_server redundancy_zone upgrade_version encrypt default_scheduler_config.* " +
		"enable_event_broker event_buffer_size deployment_query_rate_limit job_default_priority job_max_priority " +
		"job_tracked_versions job_max_source_size job_max_count raft_boltdb.* raft_logstore.* raft_snapshot_interval " +
		"raft_trailing_logs search.* oidc_issuer license_path license_env client_introduction.* start_timeout",
	"client.": "alloc_mounts_dir preferred_address_family network_speed cpu_disable_dmidecode disk_free_mb client_max_port " +
		"client_min_port gc_interval gc_parallel_destroys gc_disk_usage_threshold gc_inode_usage_threshold " +
		"gc_volumes_on_node_gc no_host_uuid disable_remote_exec template.* host_volume.* host_volumes_dir " +
		"host_volume_plugin_dir host_network.* bridge_network_name bridge_network_subnet bridge_network_subnet_ipv6 " +
		"bridge_network_hairpin_mode cni_path cni_config_dir cgroup_parent nomad_service_discovery artifact.* " +
		"drain_on_shutdown.* users.* chroot_env.* node_max_allocs fingerprint.* intro_token common_plugin_dir reserved.cores",
}

// without reports whether Nomad has a key of this path that has no effect here.
func without(path string) bool {
	for prefix, keys := range noEffect {
		rest, ok := strings.CutPrefix(path, prefix)
		if !ok {
			continue
		}
		for _, key := range strings.Fields(keys) {
			whole, open := strings.CutSuffix(key, ".*")
			if rest == whole || open && strings.HasPrefix(rest, whole+".") {
				return true
			}
		}
	}
	return false
}

// isBlock reports whether some setting lies below path.
func isBlock(path string) bool {
	for key := range settings {
		if strings.HasPrefix(key, path+".") {
			return true
		}
	}
	return false
}

func quiet(*Config, entry) error { return nil }

func text(at func(*Config) *string) setter {
	return func(c *Config, e entry) error {
		s, ok := e.value.(string)
		if !ok {
			return fmt.Errorf("%v is not a string", e)
		}
		*at(c) = s
		return nil
	}
}

func truth(at func(*Config) *bool) setter {
	return func(c *Config, e entry) error {
		b, ok := e.value.(bool)
		if !ok {
			return fmt.Errorf("%v is neither true nor false", e)
		}
		*at(c) = b
		return nil
	}
}

func float(at func(*Config) *float64) setter {
	return func(c *Config, e entry) error {
		f, ok := e.value.(float64)
		if !ok || f < 0 || math.IsInf(f, 0) {
			return fmt.Errorf("%v is not a number of at least 0", e)
		}
		*at(c) = f
		return nil
	}
}

func number(at func(*Config) *int) setter {
	return func(c *Config, e entry) error {
		f, ok := e.value.(float64)
		if !ok || f != math.Trunc(f) || f < 0 || f > math.MaxInt32 {
			return fmt.Errorf("%v is not a whole number of at least 0", e)
		}
		*at(c) = int(f)
		return nil
	}
}

func whole[N uint | uint64](at func(*Config) *N) setter {
	return func(c *Config, e entry) error {
		var n int
		err := number(func(*Config) *int { return &n })(c, e)
		if err == nil {
			*at(c) = N(n)
		}
		return err
	}
}

func duration(at func(*Config) *time.Duration) setter {
	return func(c *Config, e entry) error {
		s, ok := e.value.(string)
		d, err := time.ParseDuration(s)
		if !ok || err != nil || d < 0 {
			return fmt.Errorf("%v is not a duration such as \"30s\"", e)
		}
		*at(c) = d
		return nil
	}
}

// texts appends, so that a second file adds to the first.
func texts(at func(*Config) *[]string) setter {
	return func(c *Config, e entry) error {
		list, ok := e.value.([]any)
		if !ok {
			return fmt.Errorf("%v is not a list of strings", e)
		}
		for _, el := range list {
			s, ok := el.(string)
			if !ok {
				return fmt.Errorf("%v is not a string", el)
			}
			if !slices.Contains(*at(c), s) {
				*at(c) = append(*at(c), s)
			}
		}
		return nil
	}
}

func pairs(at func(*Config) map[string]string) setter {
	return func(c *Config, e entry) error {
		if e.block == nil {
			return fmt.Errorf("%v is not a block", e)
		}
		for _, kv := range e.block {
			switch v := kv.value.(type) {
			case string:
				at(c)[kv.key] = v
			case bool:
				at(c)[kv.key] = strconv.FormatBool(v)
			case float64:
				at(c)[kv.key] = strconv.FormatFloat(v, 'f', -1, 64)
			default:
				return fmt.Errorf("%s: %v is not a string", kv.key, kv)
			}
		}
		return nil
	}
}

// plugins takes plugin "name" { config { … } }; the plugin checks its own keys.
func plugins(c *Config, e entry) error {
	for _, p := range e.block {
		for _, part := range p.block {
			switch part.key {
			case "config":
				for _, kv := range part.block {
					c.Plugin(p.key)[kv.key] = kv.plain()
				}
			case "args":
				c.warn("plugin."+p.key+".args", part)
			default:
				return fmt.Errorf("plugin %q has the unknown key %q", p.key, part.key)
			}
		}
	}
	return nil
}
