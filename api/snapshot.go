package api

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// saveSnapshot answers with an archive of a region's state. Its sum goes before
// it, in a header, which the official client checks.
func saveSnapshot(r *request) (any, error) {
	if err := r.oneRegion(); err != nil {
		return nil, err
	}
	stream, err := rpc.Open(r.Context(), r.api.cfg.Caller, method.SnapshotSave, r.to, &method.Empty{})
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	head, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	r.meta(&method.Meta{Index: head.Index, LastContact: head.LastContact, KnownLeader: head.KnownLeader})
	h := r.response.Header()
	h.Set("Digest", "sha-256="+base64.StdEncoding.EncodeToString(head.SHA256))
	h.Set("Content-Length", strconv.FormatInt(head.Size, 10))
	to := r.response.begin("application/gzip", false)
	for {
		frame, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if _, err := to.Write(frame.Data); err != nil {
			return nil, err
		}
	}
}

// stagePiece is how much of an upload goes to the leader in a call.
const stagePiece = 1 << 20

// restoreSnapshot sends the body to the region's leader in pieces, and then has
// it restored. The body has no bound but the leader's.
func restoreSnapshot(r *request) (any, error) {
	if err := r.oneRegion(); err != nil {
		return nil, err
	}
	id := model.NewUUID(nil).String()
	control := http.NewResponseController(r.response.ResponseWriter)
	piece, sum := make([]byte, stagePiece), sha256.New()
	var size int64
	for {
		_ = control.SetReadDeadline(time.Now().Add(bodyTime))
		n, err := io.ReadFull(r.unbounded, piece)
		if n > 0 {
			if _, err := rpc.Call(r.Context(), r.api.cfg.Caller, method.SnapshotStage, r.to, &method.SnapshotPiece{ID: id, Offset: size, Data: piece[:n]}); err != nil {
				return nil, err
			}
			size += int64(n)
			sum.Write(piece[:n])
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return nil, model.Invalidf("body", "cannot read the snapshot: %v", err)
		}
	}
	_ = control.SetReadDeadline(time.Time{})
	if size == 0 {
		return nil, model.Invalidf("body", "the request has no body; send a snapshot")
	}
	out, err := rpc.Call(r.Context(), r.api.cfg.Caller, method.SnapshotRestore, r.to, &method.SnapshotRestoreRequest{ID: id, Size: size, SHA256: sum.Sum(nil)})
	if err != nil {
		return nil, err
	}
	r.index(out.Index)
	return nil, nil
}
