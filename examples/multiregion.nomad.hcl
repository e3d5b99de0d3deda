# One job in three regions, one region at a time: submit it to any of them.
#
#   atoll job run examples/multiregion.nomad.hcl
#   atoll job status hello-everywhere
#   atoll job stop -global hello-everywhere
job "hello-everywhere" {
  multiregion {
    strategy {
      max_parallel   = 1
      on_failure     = "fail_all" # or fail_local, or "": the later regions
      on_unreachable = "skip"     # or wait, or fail
    }

    # Six in all, divided by weight. Without count and weights, each region says
    # its own count.
    count     = 6
    placement = "weighted" # or capacity: by the room that the regions have

    region "us" {
      weight = 2
      meta { greeting = "Howdy" }
    }
    region "eu" {
      meta { greeting = "Salut" }
    }
    region "ap" {
      meta { greeting = "Kia ora" }
      min = 1
    }
  }

  update {
    min_healthy_time = "1s"
    auto_revert      = true
  }

  group "hello" {
    count = 0 # the regions' part

    task "say" {
      driver = "raw_exec"
      config {
        command = "/bin/sh"
        args    = ["-c", "while :; do echo \"$NOMAD_META_greeting from $NOMAD_REGION\"; sleep 5; done"]
      }
      resources {
        cpu    = 20
        memory = 16
      }
    }
  }
}
