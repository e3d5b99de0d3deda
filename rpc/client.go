package rpc

import (
	"context"
	"maps"
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

	mu      sync.Mutex // guards what follows
	servers []string
	// failing are servers whose last call failed; contact is when a region
	// last answered us.
	failing map[string]bool
	contact map[string]time.Time
}

// NewClient returns a client without servers; SetServers names them.
func NewClient(cfg ClientConfig) *Client {
	c := &Client{cfg: cfg, failing: make(map[string]bool), contact: make(map[string]time.Time)}
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
	maps.DeleteFunc(c.failing, func(addr string, _ bool) bool { return !slices.Contains(next, addr) })
}

// Servers returns the servers, the one in use first.
func (c *Client) Servers() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.servers)
}

// Lost reports whether the last call to each of the client's servers failed.
// Calls for other regions then go there at once; those for its own, of which a
// node always has some under way, find out when a server is back.
func (c *Client) Lost() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.servers {
		if !c.failing[s] {
			return false
		}
	}
	return len(c.servers) > 0
}

// LastContact is when a server of a region last answered the client itself;
// zero when none did.
func (c *Client) LastContact(region string) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.contact[region]
}

// report notes how a call to a server went. One that failed moves to the end.
func (c *Client) report(region, addr string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.contact[region] = time.Now()
		delete(c.failing, addr)
		return
	}
	if at := slices.Index(c.servers, addr); at >= 0 {
		c.servers = append(slices.Delete(c.servers, at, at+1), addr)
		c.failing[addr] = true
	}
}

func (c *Client) call(ctx context.Context, env *Envelope, spec method.Spec, req any) (any, []byte, error) {
	var tries attempts
	for {
		b, err := c.ask(ctx, &tries, env, spec, req)
		if err == nil {
			return nil, b, nil
		}
		if !tries.again(ctx, false, "", env, spec, err) {
			return nil, nil, tries.last(err)
		}
	}
}

func (c *Client) ask(ctx context.Context, tries *attempts, env *Envelope, spec method.Spec, req any) ([]byte, error) {
	x, err := c.begin(ctx, tries, env, spec, req)
	if err != nil {
		return nil, err
	}
	defer x.Close()
	return x.body(ctx)
}

func (c *Client) open(ctx context.Context, env *Envelope, spec method.Spec, req any) (receiver, error) {
	return openHeld(func(tries *attempts) (receiver, error) {
		x, err := c.begin(ctx, tries, env, spec, req)
		if err != nil {
			return nil, err
		}
		return &remoteStream{ctx, x}, nil
	}, func(tries *attempts, err error) bool { return tries.again(ctx, false, "", env, spec, err) })
}

// begin sends a call to a server of the client's region, else, when it is for
// another region, to one of that.
func (c *Client) begin(ctx context.Context, tries *attempts, env *Envelope, spec method.Spec, req any) (*exchange, error) {
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
	own := Decision{Servers: c.Servers(), Region: c.cfg.Region}
	tries.onto(&own)
	if env.Region == c.cfg.Region || c.cfg.Directory == nil {
		return c.send(ctx, own, env, spec, b)
	}
	there := Decision{Servers: c.cfg.Directory(env.Region), Region: env.Region}
	tries.onto(&there)
	if len(there.Servers) == 0 {
		return c.send(ctx, own, env, spec, b)
	}
	if !c.Lost() {
		x, err := c.send(ctx, own, env, spec, b)
		// What that region's servers say comes as an answer, not as this.
		if model.KindOf(err) != model.KindUnreachable {
			return x, err
		}
	}
	return c.send(ctx, there, env, spec, b)
}

// clientRouter routes what servers call a client for: it is all served here.
type clientRouter struct{ c *Client }

func (r clientRouter) Region() string { return r.c.cfg.Region }

func (r clientRouter) Route(context.Context, *Envelope, method.Spec) (Decision, error) {
	return Decision{Local: true}, nil
}

func (r clientRouter) Report(region, addr string, err error, _ time.Duration) {
	r.c.report(region, addr, err)
}

// Leads is not kept: a client's calls go to the nearest server, which knows.
func (r clientRouter) Leads(string, string) {}

func (r clientRouter) Unreachable(region string, cause error) *model.Error {
	return model.NoAnswer(region, cause, r.c.LastContact(region), time.Now())
}
