package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-metrics"

	"atoll/api/client"
	"atoll/model"
	"atoll/rpc"
)

// Server is what the surface asks of the agent's server.
type Server interface {
	Ready() bool
	IsLeader() bool
	Stats() map[string]string
}

// Node is what the surface asks of the agent's node.
type Node interface {
	NodeID() string
	Servers() []string
	// Lost reports whether none of its servers answers; Regions are then
	// what it last heard from them.
	Lost() bool
	Regions() []model.RegionStatus
}

// Config wires the surface.
type Config struct {
	Region, Datacenter, Name, Version string
	// Caller makes every call.
	Caller rpc.Caller
	// Server and Node are nil when the agent is not one.
	Server Server
	Node   Node
	// Shown is the configuration as agent/self shows it.
	Shown map[string]any
	// Metrics are shown as JSON; Prometheus, nil when off, as that.
	Metrics    *metrics.InmemSink
	Prometheus http.Handler
	Log        hclog.Logger
}

// MaxBody is the largest request body in bytes: far above any job, and below
// what would hurt a server.
const MaxBody = 8 << 20

// bodyTime is how long a body may take to arrive.
const bodyTime = 30 * time.Second

// API is the surface as an http.Handler.
type API struct {
	cfg    Config
	log    hclog.Logger
	routes []route
}

// New returns the surface.
func New(cfg Config) *API {
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	a := &API{cfg: cfg, log: cfg.Log.Named("http")}
	a.routes = a.table()
	return a
}

// route leads a request to its handler. The path is prefix, an id, suffix; an
// exact path has an empty id. Ids may hold slashes, so that the suffix decides.
type route struct {
	// verb is GET, PUT (which POST means too) or DELETE.
	verb           string
	prefix, suffix string
	exact          bool
	// serve returns what to encode, nil for an empty answer.
	serve func(*request) (any, error)
}

func exact(verb, path string, serve func(*request) (any, error)) route {
	return route{verb: verb, prefix: path, exact: true, serve: serve}
}

func withID(verb, prefix, suffix string, serve func(*request) (any, error)) route {
	return route{verb: verb, prefix: prefix, suffix: suffix, serve: serve}
}

// match returns the id within path.
func (r *route) match(path string) (id string, ok bool) {
	if r.exact {
		return "", path == r.prefix
	}
	if len(path) <= len(r.prefix)+len(r.suffix) || !strings.HasPrefix(path, r.prefix) || !strings.HasSuffix(path, r.suffix) {
		return "", false
	}
	return path[len(r.prefix) : len(path)-len(r.suffix)], true
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	path := r.URL.Path
	if len(path) > 1 {
		path = strings.TrimSuffix(path, "/")
	}
	verb := r.Method
	switch verb {
	case http.MethodPost:
		verb = http.MethodPut
	case http.MethodHead:
		verb = http.MethodGet
	}
	var allowed []string
	for i := range a.routes {
		route := &a.routes[i]
		id, ok := route.match(path)
		if !ok {
			continue
		}
		if route.verb != verb {
			allowed = append(allowed, route.verb)
			continue
		}
		a.serve(w, r, route, id)
		a.log.Trace("request", "method", r.Method, "path", r.URL.Path, "took", time.Since(start))
		return
	}
	switch {
	case len(allowed) > 0:
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		fail(w, http.StatusMethodNotAllowed, "Invalid method: "+r.Method+" is not one of "+strings.Join(allowed, ", "))
	case known(path):
		fail(w, http.StatusNotImplemented, "this version of Atoll does not have "+path+" yet")
	default:
		fail(w, http.StatusNotFound, "there is nothing at "+path)
	}
}

func (a *API) serve(w http.ResponseWriter, r *http.Request, route *route, id string) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		w.Header().Set(client.HeaderError, model.KindInvalid.Code())
		fail(w, http.StatusBadRequest, "cannot read the query: "+err.Error())
		return
	}
	unbounded := r.Body
	r.Body = http.MaxBytesReader(w, r.Body, MaxBody)
	req := &request{Request: r, api: a, id: id, query: query, response: newResponse(newUnstalled(w), r), unbounded: unbounded}
	if err := req.common(); err != nil {
		a.refuse(req, err)
		return
	}
	v, err := route.serve(req)
	switch {
	case err != nil:
		a.refuse(req, err)
	case req.response.begun:
		req.response.finish()
	default:
		req.response.json(v, req.query.Has("pretty"))
	}
}

// refuse answers with an error. Once an answer has begun there is no place for
// one: the connection is broken off, so that nobody takes it for complete.
func (a *API) refuse(req *request, err error) {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		err = model.Errorf(model.KindTooLarge, "the request's body is over the limit of %d bytes", tooLarge.Limit)
	}
	// Nobody listens, or the agent stops.
	gone := errors.Is(req.Context().Err(), context.Canceled)
	if gone || req.response.begun {
		a.log.Debug("an answer was broken off", "path", req.URL.Path, "error", err)
		panic(http.ErrAbortHandler)
	}
	e := model.AsError(err)
	if e.Kind == model.KindInternal {
		a.log.Error("a request failed", "path", req.URL.Path, "error", err)
	}
	req.response.Header().Set(client.HeaderError, e.Kind.Code())
	if e.Token != "" {
		req.response.Header().Set(client.HeaderRequestID, e.Token)
	}
	fail(req.response.ResponseWriter, e.Kind.HTTPStatus(), e.Message)
}

func fail(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(message))
}
