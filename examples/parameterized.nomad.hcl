# job dispatch -meta who=me count examples/parameterized.nomad.hcl
job "count" {
  type = "batch"

  parameterized {
    payload       = "required"
    meta_required = ["who"]
  }

  group "count" {
    task "main" {
      driver = "raw_exec"
      config {
        command = "/bin/sh"
        args    = ["-c", "echo for $NOMAD_META_WHO: && wc -l < $NOMAD_TASK_DIR/in/lines.txt"]
      }
      dispatch_payload { file = "in/lines.txt" }
      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
