# Redis in a container, in the current form: the group has the port, and the
# task names it. examples/redis.nomad is the same in the old form.
job "cache-new" {
  datacenters = ["dc1"]

  group "cache" {
    network {
      port "db" {
        to = 6379
      }
    }

    task "redis" {
      driver = "docker"

      config {
        image = "redis:3.2"
        ports = ["db"]
      }

      env {
        ADVERTISED = "${NOMAD_ADDR_db}"
      }

      resources {
        cpu    = 500
        memory = 256
      }
    }
  }
}
