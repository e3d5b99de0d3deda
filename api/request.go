package api

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"atoll/api/client"
	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// request is an HTTP request with what all of them have in common read.
type request struct {
	*http.Request
	api      *API
	id       string
	query    url.Values
	response *response
	// unbounded is the body for handlers that pass it on in pieces; the others
	// read Body, which has a bound.
	unbounded io.Reader
	// to and read are where the call goes and what it asks for.
	to   rpc.To
	read method.Query
}

// maxWait is the longest wait of a blocking query.
const maxWait = 5 * time.Minute

// common reads the parameters that every request may have.
func (r *request) common() error {
	r.to.Region = r.query.Get("region")
	r.to.RequestID = cmp.Or(r.query.Get("idempotency_token"), r.Header.Get(client.HeaderRequestID))
	if r.query.Has("stale") {
		stale := r.query.Get("stale")
		allow, err := strconv.ParseBool(stale)
		if err != nil && stale != "" {
			return model.Invalidf("stale", "stale %q is neither true nor false", stale)
		}
		r.to.AllowStale = allow || stale == ""
	}
	r.read = method.Query{
		Namespace: r.query.Get("namespace"), Prefix: r.query.Get("prefix"), Filter: r.query.Get("filter"), NextToken: r.query.Get("next_token"),
		Reverse: r.query.Get("reverse") == "true",
	}
	if r.query.Has("consistent") {
		r.read.Consistent = true
		if r.to.AllowStale {
			return model.Invalidf("consistent", "a read cannot be both consistent and stale; give one of them")
		}
	}
	if s := r.query.Get("index"); s != "" && r.URL.Path != allEventsPath {
		index, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return model.Invalidf("index", "Invalid index: %q is no number", s)
		}
		r.read.MinIndex = index
	}
	if s := r.query.Get("wait"); s != "" {
		wait, err := time.ParseDuration(s)
		if err != nil || wait < 0 {
			return model.Invalidf("wait", "Invalid wait time: %q is none; write one such as 30s", s)
		}
		r.read.MaxWait = min(wait, maxWait)
	}
	if s := r.query.Get("per_page"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			return model.Invalidf("per_page", "per_page %q is no number of rows", s)
		}
		r.read.PerPage = n
	}
	return nil
}

// allRegions reports whether the request asks every region.
func (r *request) allRegions() bool { return r.to.Region == model.AllRegions }

// oneRegion refuses region=* where it means nothing.
func (r *request) oneRegion() error {
	if r.allRegions() {
		return model.Invalidf("region", "region %q is for lists; name one region here", model.AllRegions)
	}
	return nil
}

// flag reads a parameter that is true or false, false when absent.
func (r *request) flag(name string) (bool, error) {
	s := r.query.Get(name)
	if s == "" {
		return false, nil
	}
	v, err := strconv.ParseBool(s)
	if err != nil {
		return false, model.Invalidf(name, "%s %q is neither true nor false", name, s)
	}
	return v, nil
}

// body decodes the request's JSON.
func (r *request) body(v any) error {
	_ = http.NewResponseController(r.response.ResponseWriter).SetReadDeadline(time.Now().Add(bodyTime))
	d := json.NewDecoder(r.Body)
	err := d.Decode(v)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			_ = http.NewResponseController(r.response.ResponseWriter).SetReadDeadline(time.Time{})
			return nil
		}
		if err == nil {
			err = errors.New("more follows the object")
		}
	}
	var tooLarge *http.MaxBytesError
	var wrongType *json.UnmarshalTypeError
	var own *model.Error
	switch {
	case errors.As(err, &tooLarge), errors.As(err, &own):
		return err
	case errors.Is(err, io.EOF):
		return model.Invalidf("body", "the request has no body; send a JSON object")
	case errors.As(err, &wrongType):
		field := wrongType.Field
		if field == "" {
			field = "the body"
		}
		return model.Invalidf(field, "cannot read the request's body: %s is a JSON %s, at byte %d, where %s is wanted", field, wrongType.Value, wrongType.Offset, jsonKind(wrongType))
	}
	return model.Invalidf("body", "cannot read the request's body: %s", strings.TrimPrefix(err.Error(), "json: "))
}

// jsonKind names what was wanted in JSON's terms.
func jsonKind(e *json.UnmarshalTypeError) string {
	switch k := e.Type.Kind().String(); {
	case k == "string":
		return "a string"
	case k == "bool":
		return "true or false"
	case strings.HasPrefix(k, "int"), strings.HasPrefix(k, "uint"):
		return "a whole number"
	case strings.HasPrefix(k, "float"):
		return "a number"
	case k == "slice":
		return "a list"
	}
	return "an object"
}

// meta sets the headers of a read.
func (r *request) meta(m *method.Meta) {
	h := r.response.Header()
	h.Set("X-Nomad-Index", strconv.FormatUint(m.Index, 10))
	h.Set("X-Nomad-LastContact", strconv.FormatInt(m.LastContact.Milliseconds(), 10))
	h.Set("X-Nomad-KnownLeader", strconv.FormatBool(m.KnownLeader))
	if m.NextToken != "" {
		h.Set("X-Nomad-NextToken", m.NextToken)
	}
}

// index sets the header of a write.
func (r *request) index(i uint64) {
	r.response.Header().Set("X-Nomad-Index", strconv.FormatUint(i, 10))
}

// call makes a read that is for one region.
func call[Q, R any](r *request, m method.Method[Q, R], req *Q, meta func(*R) *method.Meta) (*R, error) {
	if err := r.oneRegion(); err != nil {
		return nil, err
	}
	out, err := rpc.Call(r.Context(), r.api.cfg.Caller, m, r.to, req)
	if err != nil {
		return nil, err
	}
	if meta != nil {
		r.meta(meta(out))
	}
	return out, nil
}

// show answers with the body of a read that is for one region: nil when there is no
// such thing. One that comes from elsewhere was encoded there.
func show[Q, R any, A answer[R]](r *request, m method.Method[Q, R], req *Q) (any, error) {
	if err := r.oneRegion(); err != nil {
		return nil, err
	}
	to := r.to
	to.JSON = true
	out, err := rpc.Call(r.Context(), r.api.cfg.Caller, m, to, req)
	if err != nil {
		return nil, err
	}
	meta := A(out).About()
	r.meta(meta)
	if meta.JSON != "" {
		return json.RawMessage(meta.JSON), nil
	}
	r.response.shared = meta.Encoding
	return A(out).Body(), nil
}

// answer is a reply of type R as one that has a body.
type answer[R any] interface {
	*R
	method.Answer
}

// object is show, of what is an error when it is not there.
func object[Q, R any, A answer[R]](r *request, what string, m method.Method[Q, R], req *Q) (any, error) {
	v, err := show[Q, R, A](r, m, req)
	if err == nil && v == nil {
		err = notFound(what, r.id)
	}
	return v, err
}

// write makes a write that is for one region; index finds the answer's.
func write[Q, R any](r *request, m method.Method[Q, R], req *Q, index func(*R) uint64) (*R, error) {
	if err := r.oneRegion(); err != nil {
		return nil, err
	}
	out, err := rpc.Call(r.Context(), r.api.cfg.Caller, m, r.to, req)
	if err != nil {
		return nil, err
	}
	r.index(index(out))
	return out, nil
}

// notFound is a read's answer that there is no such thing; the headers say as of
// when, so that it can be waited for.
func notFound(what, id string) error {
	return &model.Error{Kind: model.KindNotFound, Message: fmt.Sprintf("%s not found: %q", what, id)}
}
