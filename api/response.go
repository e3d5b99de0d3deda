package api

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"

	"atoll/model/method"
)

// response writes an answer, compressed when the client takes that.
type response struct {
	http.ResponseWriter
	zip   bool
	gz    *gzip.Writer
	begun bool
	// status is of an answer that is no error; 0 means 200.
	status int
	// shared is the encoding of an answer that others have too, nil for one
	// of its own.
	shared *method.Encoding
}

func newResponse(w http.ResponseWriter, r *http.Request) *response {
	w.Header().Add("Vary", "Accept-Encoding")
	return &response{ResponseWriter: w, zip: strings.Contains(r.Header.Get("Accept-Encoding"), "gzip")}
}

// zippers are used again: each is 800 kB, which is more than the answers that
// most compress.
var zippers = sync.Pool{New: func() any { gz, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed); return gz }}

func zipper(to io.Writer) *gzip.Writer {
	gz := zippers.Get().(*gzip.Writer)
	gz.Reset(to)
	return gz
}

// minZip is the size below which compressing costs more than it saves.
const minZip = 1024

// begin writes the header; what follows goes to the returned writer.
func (w *response) begin(contentType string, zip bool) io.Writer {
	w.begun = true
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if !zip {
		w.WriteHeader(cmp.Or(w.status, http.StatusOK))
		return w.ResponseWriter
	}
	w.Header().Set("Content-Encoding", "gzip")
	w.WriteHeader(cmp.Or(w.status, http.StatusOK))
	w.gz = zipper(w.ResponseWriter)
	return w.gz
}

// flush sends what was written so far, through the compression too.
func (w *response) flush() {
	if w.gz != nil {
		_ = w.gz.Flush()
	}
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *response) finish() {
	if w.gz != nil {
		_ = w.gz.Close()
		zippers.Put(w.gz)
		w.gz = nil
	}
}

// zipped answers with JSON that is compressed already.
func (w *response) zipped(b []byte) {
	w.Header().Set("Content-Encoding", "gzip")
	_, _ = w.begin("application/json", false).Write(b)
}

func compress(b []byte) []byte {
	var out bytes.Buffer
	gz := zipper(&out)
	_, _ = gz.Write(b)
	_ = gz.Close()
	zippers.Put(gz)
	return out.Bytes()
}

// json answers with v.
func (w *response) json(v any, pretty bool) {
	var err error
	b, _ := v.(json.RawMessage)
	if w.shared != nil && !pretty {
		b = w.shared.Plain(func() []byte { b, _ := json.Marshal(v); return b })
		if w.zip && len(b) >= minZip {
			w.zipped(w.shared.Zipped(func() []byte { return compress(b) }))
			return
		}
	}
	switch {
	case pretty:
		b, err = json.MarshalIndent(v, "", "    ")
	case b == nil:
		b, err = json.Marshal(v)
	}
	if err != nil {
		fail(w.ResponseWriter, http.StatusInternalServerError, "cannot encode the answer: "+err.Error())
		return
	}
	if pretty {
		b = append(b, '\n')
	}
	_, _ = w.begin("application/json", w.zip && len(b) >= minZip).Write(b)
	w.finish()
}
