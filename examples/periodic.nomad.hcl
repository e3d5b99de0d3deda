# Every night at half past one in Berlin, and at noon on Sundays; not while the last one still runs.
job "backup" {
  type = "batch"

  periodic {
    crons            = ["30 1 * * *", "0 12 * * SUN"]
    time_zone        = "Europe/Berlin"
    prohibit_overlap = true
  }

  group "backup" {
    task "main" {
      driver = "raw_exec"
      config {
        command = "/bin/sh"
        args    = ["-c", "echo backing up, as $NOMAD_JOB_ID"]
      }
      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
