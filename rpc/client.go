package rpc

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-metrics"

	"atoll/internal/wire"
	"atoll/model"
	"atoll/model/method"
)

// ClientConfig wires a client.
type ClientConfig struct {
	// Region is the client's own.
	Region string
	Dial   DialFunc
	Limits Limits
	Log    hclog.Logger
	// Directory returns the servers of a region, as last heard; it serves
	// calls for other regions when the client's own servers are gone. Nil
	// knows none.
	Directory func(region string) []string
	Metrics   *metrics.Metrics
}

// Client is the Caller of an agent that is no server. It keeps to one of its
// region's servers until that fails, and serves on the session what servers
// call it for.
type Client struct {
	*Server
	cfg ClientConfig

	mu      sync.Mutex // guards servers
	servers []string
}

// NewClient returns a client without servers; SetServers names them.
func NewClient(cfg ClientConfig) *Client {
	c := &Client{cfg: cfg}
	c.Server = NewServer(ServerConfig{Router: clientRouter{c}, Dial: cfg.Dial, Limits: cfg.Limits, Log: cfg.Log, Metrics: cfg.Metrics})
	c.pool.serve = c.ServeSession
	return c
}

// SetServers names the servers of the client's region. The one in use is kept
// in front when it is among them.
func (c *Client) SetServers(addrs []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := slices.Clone(addrs)
	if len(c.servers) > 0 {
		if at := slices.Index(next, c.servers[0]); at > 0 {
			next[0], next[at] = next[at], next[0]
		}
	}
	c.servers = next
}

// Servers returns the servers, the one in use first.
func (c *Client) Servers() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.servers)
}

// failed moves a server to the end.
func (c *Client) failed(addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := slices.Index(c.servers, addr); at >= 0 && len(c.servers) > 1 {
		c.servers = append(slices.Delete(c.servers, at, at+1), addr)
	}
}

func (c *Client) call(ctx context.Context, env *Envelope, spec method.Spec, req any) (any, []byte, error) {
	x, err := c.begin(ctx, env, spec, req)
	if err != nil {
		return nil, nil, err
	}
	defer x.Close()
	b, err := x.body(ctx)
	return nil, b, err
}

func (c *Client) open(ctx context.Context, env *Envelope, spec method.Spec, req any) (receiver, error) {
	x, err := c.begin(ctx, env, spec, req)
	if err != nil {
		return nil, err
	}
	return &remoteStream{ctx, x}, nil
}

// begin sends a call to a server of the client's region, else, when it is for
// another region, to one of that.
func (c *Client) begin(ctx context.Context, env *Envelope, spec method.Spec, req any) (*exchange, error) {
	if env.Region == "" || env.Region == model.GlobalRegion {
		env.Region = c.cfg.Region
	}
	b, err := wire.Encode(req)
	if err != nil {
		return nil, err
	}
	if len(b) > c.limits.MaxBody {
		return nil, model.Errorf(model.KindTooLarge, "the request of %d bytes is over the limit of %d", len(b), c.limits.MaxBody)
	}
	x, err := c.send(ctx, Decision{Servers: c.Servers(), Region: c.cfg.Region}, env, spec, b)
	if err == nil || model.KindOf(err) != model.KindUnreachable || env.Region == c.cfg.Region || c.cfg.Directory == nil {
		return x, err
	}
	if there := c.cfg.Directory(env.Region); len(there) > 0 {
		return c.send(ctx, Decision{Servers: there, Region: env.Region}, env, spec, b)
	}
	return nil, err
}

// clientRouter routes what servers call a client for: it is all served here.
type clientRouter struct{ c *Client }

func (r clientRouter) Region() string { return r.c.cfg.Region }

func (r clientRouter) Route(context.Context, *Envelope, method.Spec) (Decision, error) {
	return Decision{Local: true}, nil
}

func (r clientRouter) Report(_, addr string, err error, _ time.Duration) {
	if err != nil {
		r.c.failed(addr)
	}
}

func (r clientRouter) Unreachable(region string, cause error) *model.Error {
	what := errors.Unwrap(cause)
	if what == nil {
		what = cause
	}
	return &model.Error{Kind: model.KindUnreachable, Region: region, Message: "no server of region \"" + region + "\" answers this agent: " + what.Error()}
}
