# An agent as an operator of Nomad may have it, with every block that its
# documentation names.
region     = "europe"
datacenter = "ams-1"
name       = "ams-1-r12-n3"
data_dir   = "/var/lib/nomad"
plugin_dir = "/opt/nomad/plugins"

log_level            = "WARN"
log_json             = true
log_include_location = true
log_file             = "/var/log/nomad/"
log_rotate_bytes     = 104857600
log_rotate_duration  = "24h"
log_rotate_max_files = 7

enable_debug    = false
enable_syslog   = true
syslog_facility = "LOCAL0"

leave_on_interrupt          = true
leave_on_terminate          = true
disable_update_check        = true
disable_anonymous_signature = true

bind_addr = "127.0.0.1"

addresses {
  http = "127.0.0.1"
  rpc  = "127.0.0.2"
  serf = "127.0.0.3"
}

ports {
  http = 14646
  rpc  = 14647
  serf = 14648
}

advertise {
  http = "10.1.2.3"
  rpc  = "10.1.2.3:4647"
  serf = "10.1.2.3:4648"
}

http_api_response_headers {
  Access-Control-Allow-Origin = "*"
}

server {
  enabled              = true
  bootstrap_expect     = 3
  authoritative_region = "global"
  data_dir             = "/var/lib/nomad/server"
  encrypt              = "cg8StVXbQJ0gPvMd9o7yrg=="
  start_timeout        = "30s"
  num_schedulers       = 4
  enabled_schedulers   = ["service", "batch", "system", "sysbatch"]

  heartbeat_grace           = "15s"
  min_heartbeat_ttl         = "20s"
  max_heartbeats_per_second = 250.5
  failover_heartbeat_ttl    = "300s"

  job_gc_interval               = "5m"
  job_gc_threshold              = "4h"
  eval_gc_threshold             = "1h"
  batch_eval_gc_threshold       = "24h"
  deployment_gc_threshold       = "1h"
  node_gc_threshold             = "24h"
  csi_volume_claim_gc_interval  = "5m"
  csi_volume_claim_gc_threshold = "1h"
  csi_plugin_gc_threshold       = "1h"
  acl_token_gc_threshold        = "1h"
  root_key_gc_interval          = "10m"
  root_key_gc_threshold         = "1h"
  root_key_rotation_threshold   = "720h"

  job_default_priority        = 50
  job_max_priority            = 100
  job_tracked_versions        = 6
  job_max_source_size         = "1M"
  enable_event_broker         = true
  event_buffer_size           = 100
  deployment_query_rate_limit = 2
  rejoin_after_leave          = true
  non_voting_server           = false
  redundancy_zone             = "rack-12"
  upgrade_version             = "1.0.0"
  license_path                = "/etc/nomad.d/license.hclic"
  oidc_issuer                 = "https://nomad.example.com"

  raft_protocol           = 3
  raft_multiplier         = 1
  raft_snapshot_threshold = 16384
  raft_snapshot_interval  = "120s"
  raft_trailing_logs      = 10240
  raft_boltdb {
    no_freelist_sync = true
  }
  raft_logstore {
    backend = "wal"
    wal {
      segment_size_mb = 64
    }
  }

  plan_rejection_tracker {
    enabled        = true
    node_threshold = 100
    node_window    = "5m"
  }

  default_scheduler_config {
    scheduler_algorithm             = "spread"
    memory_oversubscription_enabled = true
    preemption_config {
      batch_scheduler_enabled = true
    }
  }

  search {
    fuzzy_enabled   = true
    limit_query     = 20
    limit_results   = 100
    min_term_length = 2
  }

  server_join {
    retry_join     = ["10.1.0.1", "10.1.0.2:4648"]
    retry_interval = "15s"
    retry_max      = 5
  }
}

client {
  enabled    = true
  state_dir  = "/var/lib/nomad/client"
  alloc_dir  = "/var/lib/nomad/alloc"
  node_class = "compute"
  node_pool  = "gpu"
  servers    = ["10.1.0.1:4647", "10.1.0.2:4647"]

  alloc_mounts_dir        = "/var/lib/nomad/alloc_mounts"
  network_interface       = "eth1"
  preferred_address_family = "ipv4"
  network_speed           = 1000
  cpu_total_compute       = 8000
  memory_total_mb         = 16384
  disk_total_mb           = 200000
  disk_free_mb            = 100000
  cpu_disable_dmidecode   = true
  min_dynamic_port        = 21000
  max_dynamic_port        = 22000
  max_kill_timeout        = "60s"
  disable_remote_exec     = true
  no_host_uuid            = true
  node_max_allocs         = 200

  gc_interval              = "1m"
  gc_disk_usage_threshold  = 80
  gc_inode_usage_threshold = 70
  gc_max_allocs            = 25
  gc_parallel_destroys     = 2
  gc_volumes_on_node_gc    = true

  cni_path                    = "/opt/cni/bin"
  cni_config_dir              = "/etc/cni/net.d"
  bridge_network_name         = "nomad"
  bridge_network_subnet       = "172.26.64.0/20"
  bridge_network_hairpin_mode = true
  cgroup_parent               = "nomad.slice"
  nomad_service_discovery     = true
  host_volumes_dir            = "/var/lib/nomad/host_volumes"
  host_volume_plugin_dir      = "/opt/nomad/host_volume_plugins"

  meta {
    rack   = "r12"
    serial = 10000000
    ssd    = true
  }
  options = {
    "driver.raw_exec.enable" = "1"
    "docker.endpoint"        = "unix:///var/run/docker.sock"
  }
  reserved {
    cpu            = 500
    cores          = "0-1"
    memory         = 512
    disk           = 1024
    reserved_ports = "22,80,8500-8600"
  }
  chroot_env {
    "/bin" = "/bin"
    "/lib" = "/lib"
  }
  host_volume "certificates" {
    path      = "/etc/ssl/certs"
    read_only = true
  }
  host_network "public" {
    cidr           = "203.0.113.0/24"
    reserved_ports = "22,80"
  }
  template {
    function_denylist    = ["plugin"]
    disable_file_sandbox = false
    wait {
      min = "5s"
      max = "4m"
    }
    nomad_retry {
      attempts = 12
    }
  }
  artifact {
    http_read_timeout = "30m"
    http_max_size     = "100GB"
  }
  drain_on_shutdown {
    deadline           = "1h"
    force              = false
    ignore_system_jobs = false
  }
  users {
    dynamic_user_min = 80000
    dynamic_user_max = 89999
  }
  fingerprint "env_aws" {
    retry_interval = "5m"
    retry_attempts = 4
  }
  server_join {
    retry_join     = ["10.1.0.2:4647", "10.1.0.3:4647"]
    retry_interval = "30s"
    retry_max      = 0
  }
}

plugin "raw_exec" {
  config {
    enabled = true
  }
}

plugin "docker" {
  args = ["-v"]
  config {
    endpoint = "unix:///run/docker.sock"
    volumes {
      enabled = true
    }
    gc {
      image       = true
      image_delay = "3m"
    }
    allow_caps = ["chown", "net_raw"]
  }
}

acl {
  enabled                  = true
  token_ttl                = "30s"
  policy_ttl               = "60s"
  role_ttl                 = "60s"
  replication_token        = ""
  token_min_expiration_ttl = "1m"
  token_max_expiration_ttl = "24h"
}

tls {
  http                   = true
  rpc                    = true
  ca_file                = "/etc/nomad.d/ca.pem"
  cert_file              = "/etc/nomad.d/agent.pem"
  key_file               = "/etc/nomad.d/agent-key.pem"
  verify_server_hostname = true
  verify_https_client    = true
}

consul {
  address             = "127.0.0.1:8500"
  auto_advertise      = true
  client_auto_join    = true
  server_service_name = "nomad"
  service_identity {
    aud = ["consul.io"]
    ttl = "1h"
  }
}

vault {
  enabled = true
  address = "https://vault.service.consul:8200"
  default_identity {
    aud = ["vault.io"]
  }
}

autopilot {
  cleanup_dead_servers      = true
  last_contact_threshold    = "200ms"
  max_trailing_logs         = 250
  server_stabilization_time = "10s"
}

audit {
  enabled = true
  sink "audit" {
    type   = "file"
    format = "json"
  }
}

limits {
  http_max_conns_per_client = 100
  https_handshake_timeout   = "5s"
  rpc_max_conns_per_client  = 100
  rpc_handshake_timeout     = "5s"
}

keyring "awskms" {
  active     = true
  region     = "eu-west-1"
  kms_key_id = "alias/nomad"
}

rpc {
  accept_backlog         = 256
  keep_alive_interval    = "30s"
  connection_write_timeout = "10s"
}

reporting {
  license {
    enabled = false
  }
}

sentinel {
  import "time" {
    path = "/etc/nomad.d/time"
  }
}

ui {
  enabled = true
  label {
    text = "Amsterdam"
  }
  consul {
    ui_url = "https://consul.example.com/ui"
  }
}

telemetry {
  collection_interval                    = "10s"
  disable_hostname                       = true
  use_node_name                          = true
  prometheus_metrics                     = true
  publish_allocation_metrics             = true
  publish_node_metrics                   = true
  include_alloc_metadata_in_metrics      = true
  in_memory_collection_interval          = "1m"
  in_memory_retention_period             = "24h"
  disable_dispatched_job_summary_metrics = true
  prefix_filter                          = ["+nomad.raft.apply"]
  filter_default                         = true
  statsd_address                         = "statsd.example.com:8125"
  statsite_address                       = "statsite.example.com:8125"
  datadog_address                        = "127.0.0.1:8125"
  datadog_tags                           = ["env:prod"]
  circonus_api_token                     = ""
}
