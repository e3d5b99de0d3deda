package api

import (
	"cmp"
	"encoding/json"
	"io"
	"strconv"
	"time"

	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// heartbeatEvery is between signs of life in a followed log.
const heartbeatEvery = time.Second

// allocLogs streams a task's log: JSON objects one after another, or with plain
// its text alone.
func allocLogs(r *request) (any, error) {
	if err := r.oneRegion(); err != nil {
		return nil, err
	}
	follow, err := r.flag("follow")
	if err != nil {
		return nil, err
	}
	plain, err := r.flag("plain")
	if err != nil {
		return nil, err
	}
	req := &method.LogsRequest{
		AllocID: r.id, Task: r.query.Get("task"), Type: r.query.Get("type"), Origin: cmp.Or(r.query.Get("origin"), "start"), Follow: follow,
	}
	if req.Task == "" {
		return nil, model.Invalidf("task", "must provide task name: add task=NAME")
	}
	if req.Type != "stdout" && req.Type != "stderr" {
		return nil, model.Invalidf("type", "type %q is neither stdout nor stderr", req.Type)
	}
	if s := r.query.Get("offset"); s != "" {
		if req.Offset, err = strconv.ParseInt(s, 10, 64); err != nil || req.Offset < 0 {
			return nil, model.Invalidf("offset", "offset %q is no number of bytes", s)
		}
	}
	stream, err := rpc.Open(r.Context(), r.api.cfg.Caller, method.AllocLogs, r.to, req)
	if err != nil {
		return nil, err
	}
	out := &logWriter{r: r, plain: plain}
	if err := each(r, stream, heartbeatEvery, out.write, func() error { return out.write(&method.LogFrame{}) }); err != nil {
		return nil, err
	}
	return nil, out.begin()
}

// logWriter writes frames as clients read them.
type logWriter struct {
	r     *request
	plain bool
	to    io.Writer
}

// begin writes the header, not before it is known that there is a log: errors
// until then have a status.
func (w *logWriter) begin() error {
	if w.to == nil {
		kind := "application/json"
		if w.plain {
			kind = "text/plain; charset=utf-8"
		}
		w.to = w.r.response.begin(kind, w.r.response.zip)
	}
	return nil
}

// frame is a log frame in JSON; a heartbeat is {}.
type frame struct {
	Offset    int64  `json:",omitempty"`
	Data      []byte `json:",omitempty"`
	File      string `json:",omitempty"`
	FileEvent string `json:",omitempty"`
}

func (w *logWriter) write(f *method.LogFrame) error {
	if err := w.begin(); err != nil {
		return err
	}
	var err error
	if w.plain {
		_, err = w.to.Write(f.Data)
	} else {
		err = json.NewEncoder(w.to).Encode(frame(*f))
	}
	w.r.response.flush()
	return err
}
