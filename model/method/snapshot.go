package method

import "time"

// Snapshots of a cell's state, saved by and restored for an operator.
var (
	// SnapshotSave answers with one frame that describes the archive, and then
	// its bytes.
	SnapshotSave = Method[Empty, SnapshotFrame]{Spec{Name: "Operator.SnapshotSave", Place: AtLeaderOrStale, Stream: true}}
	// SnapshotStage sends the leader a piece of an archive to restore: in any
	// number of calls, since a request has a bound. A piece may be sent again.
	SnapshotStage = Method[SnapshotPiece, SnapshotStaged]{Spec{Name: "Operator.SnapshotStage", Place: AtLeader, Write: true}}
	// SnapshotRestore restores what was staged. It takes as long as it takes.
	SnapshotRestore = Method[SnapshotRestoreRequest, IndexResponse]{Spec{Name: "Operator.SnapshotRestore", Place: AtLeader, Write: true, Blocks: true}}
)

type (
	// SnapshotFrame is a piece of an archive; the first has what describes the
	// whole, and no data.
	SnapshotFrame struct {
		Data []byte
		// SHA256 and Size are the archive's.
		SHA256 []byte
		Size   int64
		// Index is the snapshot's, LastContact how long ago the answering
		// server heard its leader.
		Index       uint64
		LastContact time.Duration
		KnownLeader bool
	}
	// SnapshotPiece is a piece of the upload of an id, which its sender makes
	// up. The piece at offset 0 begins it, in the place of any other.
	SnapshotPiece struct {
		ID     string
		Offset int64
		Data   []byte
	}
	SnapshotStaged         struct{ Size int64 }
	SnapshotRestoreRequest struct {
		ID     string
		Size   int64
		SHA256 []byte
	}
)
