package method

// Logs of a task, streamed from its node.
var (
	AllocLogs = Method[LogsRequest, LogFrame]{Spec{Name: "Alloc.Logs", Place: AtServer, Stream: true}}
	// NodeLogs is AllocLogs as served by the node itself.
	NodeLogs = Method[LogsRequest, LogFrame]{Spec{Name: "Node.Logs", Place: AtNode, Stream: true}}
)

type (
	LogsRequest struct {
		AllocID, Task string
		// Type is "stdout" or "stderr".
		Type string
		// Origin is "start" or "end"; Offset counts bytes from there.
		Origin string
		Offset int64
		Follow bool
	}
	// LogFrame is a piece of a log, of at most 64 KiB; one without data or
	// event is a sign of life. FileEvent is "file deleted" or
	// "file truncated".
	LogFrame struct {
		Offset    int64
		Data      []byte
		File      string
		FileEvent string
	}
)
