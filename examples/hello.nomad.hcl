# A service of one plain process, which says where it runs every second.
job "hello" {
  datacenters = ["*"]

  group "greeters" {
    count = 1

    task "greeter" {
      driver = "raw_exec"

      config {
        command = "/bin/sh"
        args    = ["-c", "n=0; while true; do n=$((n+1)); echo \"hello number $n from ${NOMAD_ALLOC_NAME} in ${node.region}\"; sleep 1; done"]
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
