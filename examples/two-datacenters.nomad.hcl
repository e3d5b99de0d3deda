# A service spread over two datacenters of one region, as capacity needs.
job "ring" {
  datacenters = ["dc1", "dc2"]

  group "workers" {
    count = 4

    restart {
      attempts = 3
      interval = "5m"
      delay    = "5s"
      mode     = "delay"
    }

    task "worker" {
      driver = "raw_exec"

      config {
        command = "/bin/sleep"
        args    = ["infinity"]
      }

      resources {
        cpu    = 100
        memory = 64
      }
    }
  }
}
