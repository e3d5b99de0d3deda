# A batch job with variables: run it with -var words='["one","two"]'.
variable "words" {
  type        = list(string)
  default     = ["reef", "lagoon", "motu"]
  description = "What to say, each by a task of its own."

  validation {
    condition     = length(var.words) > 0 && length(var.words) <= 20
    error_message = "Give from 1 to 20 words."
  }
}

locals {
  greeting = "say"
}

job "words" {
  type        = "batch"
  datacenters = ["*"]

  group "say" {
    dynamic "task" {
      for_each = var.words
      labels   = ["${local.greeting}-${task.value}"]

      content {
        driver = "raw_exec"

        config {
          command = "/bin/echo"
          args    = [upper(task.value), "from", "${node.unique.name}"]
        }

        logs {
          max_files     = 1
          max_file_size = 1
        }

        resources {
          cpu    = 20
          memory = 16
        }
      }
    }
  }
}
