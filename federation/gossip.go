package federation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/coordinate"
	"github.com/hashicorp/serf/serf"

	"atoll/internal/backoff"
	"atoll/model"
)

// Protocol is the version of what servers say to each other; a server whose
// range does not include ours is not used.
const Protocol = 1

// Tags of a gossip member. Other values of role are other programs.
const (
	tagRole   = "role"
	tagRegion = "region"
	tagDC     = "dc"
	tagID     = "id"
	tagRPC    = "rpc_addr"
	tagPort   = "port" // Nomad's tools compare the leader with Addr and this
	tagExpect = "expect"
	tagCell   = "cell"
	tagBuild  = "build"
	tagProto  = "vsn"
	tagMin    = "vsn_min"
	tagMax    = "vsn_max"

	roleServer = "atoll-server"
)

// GossipConfig says who we are in the pool.
type GossipConfig struct {
	// Name is the server's; its member name is name.region.
	Name, Region, Datacenter string
	// ID is the server's Raft id, Cell its cell's, "" when it is of none yet.
	ID, Cell string
	// Bind is host:port to listen on, Advertise what others are told, RPC
	// the server's RPC address as others reach it.
	Bind, Advertise, RPC string
	Expect               int
	Build                string
	// DataDir keeps the members last seen, to rejoin them after a restart;
	// "" keeps none.
	DataDir string
	// Regions are those whose servers are used beside our own; none means all.
	Regions []string
	// Resolve finds the addresses of a host that is to be joined; nil asks the
	// system.
	Resolve func(ctx context.Context, host string) ([]string, error)
	Log     hclog.Logger
	// Notify is called after each change of the pool, from one goroutine.
	Notify func()
}

// Peer is a server, as it says of itself by gossip.
type Peer struct {
	Name, Region, Datacenter string
	ID                       string
	RPC                      string
	Expect                   int
	Cell                     string
	Build                    string
	// ProtocolMin and ProtocolMax are the protocols that it speaks.
	ProtocolMin, ProtocolMax int
	// Alive is what gossip believes; Left says that it has gone on purpose. A
	// server of which somebody said that it is leaving is neither until it has,
	// since anybody can say so.
	Alive, Left bool
	// RTT is the estimate of the round trip from here, 0 when there is none.
	RTT time.Duration
}

// Gossip is this server's membership of the pool of all servers of all
// regions. NewGossip joins nobody; Run and then RetryJoin do.
type Gossip struct {
	cfg    GossipConfig
	serf   *serf.Serf
	events chan serf.Event
	// changed has a change that is not told yet.
	changed chan struct{}
	// refused are the members last told of as not used; Run's alone.
	refused map[string]string
	// port is what addresses without one mean.
	port int

	mu   sync.Mutex // guards tags
	tags map[string]string
}

// NewGossip starts to listen.
//
// The timings are chosen so that a region that fell silent on a LAN-like WAN is
// held lost within five seconds: a probe each second, given half a second and
// three helpers, and a suspicion of 3·log10(n+1) seconds at the most, which for
// nine servers is three.
func NewGossip(cfg GossipConfig) (*Gossip, error) {
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	if cfg.Resolve == nil {
		cfg.Resolve = net.DefaultResolver.LookupHost
	}
	host, port, err := splitAddr(cfg.Bind)
	if err != nil {
		return nil, err
	}
	g := &Gossip{cfg: cfg, events: make(chan serf.Event, 256), changed: make(chan struct{}, 1), port: port}
	advHost, advPort, err := splitAddr(cfg.Advertise)
	if err != nil {
		return nil, err
	}
	_, rpcPort, err := splitAddr(cfg.RPC)
	if err != nil {
		return nil, err
	}
	logger := cfg.Log.Named("serf").StandardLogger(&hclog.StandardLoggerOptions{InferLevels: true})
	c := serf.DefaultConfig()
	c.NodeName = cfg.Name + "." + cfg.Region
	c.EventCh = g.events
	c.Logger = logger
	c.EnableNameConflictResolution = false
	c.RejoinAfterLeave = true
	c.LeavePropagateDelay = 250 * time.Millisecond
	c.BroadcastTimeout = time.Second
	// A lost server is remembered, and tried again, for days.
	c.ReconnectTimeout = 72 * time.Hour
	c.ReconnectInterval = 2 * time.Second
	c.QueueDepthWarning = 4096
	if cfg.DataDir != "" {
		c.SnapshotPath = filepath.Join(cfg.DataDir, "serf.snapshot")
	}
	m := memberlist.DefaultWANConfig()
	m.BindAddr, m.BindPort = host, port
	m.AdvertiseAddr, m.AdvertisePort = advHost, advPort
	m.Logger = logger
	m.ProbeInterval, m.ProbeTimeout = time.Second, 500*time.Millisecond
	m.SuspicionMult, m.SuspicionMaxTimeoutMult = 3, 2
	m.GossipInterval, m.GossipNodes = 200*time.Millisecond, 4
	m.GossipToTheDeadTime = 60 * time.Second
	m.TCPTimeout = 3 * time.Second
	m.PushPullInterval = 15 * time.Second
	// A server that died may come back under another address.
	m.DeadNodeReclaimTime = 5 * time.Second
	c.MemberlistConfig = m
	g.tags = map[string]string{
		tagRole: roleServer, tagRegion: cfg.Region, tagDC: cfg.Datacenter, tagID: cfg.ID, tagRPC: cfg.RPC,
		tagPort: strconv.Itoa(rpcPort), tagExpect: strconv.Itoa(cfg.Expect), tagBuild: cfg.Build,
		tagProto: strconv.Itoa(Protocol), tagMin: strconv.Itoa(Protocol), tagMax: strconv.Itoa(Protocol),
	}
	if cfg.Cell != "" {
		g.tags[tagCell] = cfg.Cell
	}
	c.Tags = g.tags
	// Serf opens its snapshot before its port, and forgets it when the port
	// cannot be had: so the port comes first.
	transport, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{host}, BindPort: port, Logger: logger})
	if err != nil {
		return nil, fmt.Errorf("cannot start gossip on %s: %w", cfg.Bind, err)
	}
	m.Transport = transport
	if g.serf, err = serf.Create(c); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot start gossip on %s: %w", cfg.Bind, err), transport.Shutdown())
	}
	return g, nil
}

func splitAddr(addr string) (string, int, error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("cannot use address %q: %w", addr, err)
	}
	port, err := strconv.Atoi(p)
	if err != nil {
		return "", 0, fmt.Errorf("cannot use address %q: %w", addr, err)
	}
	return host, port, nil
}

// Changed makes Run tell of a change, of what we know ourselves.
func (g *Gossip) Changed() {
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

// Run tells of changes until ctx ends. It does not leave the pool.
func (g *Gossip) Run(ctx context.Context) error {
	// Serf tells of no change of round trips, nor of a server that contradicts
	// whoever said that it leaves.
	refresh := time.NewTicker(10 * time.Second)
	defer refresh.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.changed:
			g.notify()
		case <-refresh.C:
			g.notify()
		case <-g.events:
			// One notice for whatever has piled up.
			for n := len(g.events); n > 0; n-- {
				<-g.events
			}
			g.notify()
		}
	}
}

func (g *Gossip) notify() {
	_, refused := g.Peers()
	told := make(map[string]string, len(refused))
	for _, s := range refused {
		if told[s.Name] = s.Cause; g.refused[s.Name] != s.Cause {
			// The other end finds the same, and says so there.
			g.cfg.Log.Error("a gossip member is not used", "member", s.Name, "region", s.Region, "version", s.Build, "cause", s.Cause)
		}
	}
	g.refused = told
	if g.cfg.Notify != nil {
		g.cfg.Notify()
	}
}

// Leave tells the others that this server goes on purpose, and waits a moment
// for that to spread.
func (g *Gossip) Leave() error { return g.serf.Leave() }

// Close ends gossip without a word, as a crash would, unless Leave was called.
func (g *Gossip) Close() error {
	err := g.serf.Shutdown()
	<-g.serf.ShutdownCh()
	return err
}

// Join contacts servers by their gossip addresses, one after another until ctx ends,
// and returns how many answered. It fails when none did.
func (g *Gossip) Join(ctx context.Context, addrs []string) (joined int, err error) {
	var errs []error
	for _, addr := range addrs {
		n, err := g.joinOne(ctx, addr)
		joined += n
		if err != nil {
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	if joined == 0 && len(errs) > 0 {
		kind := model.KindUnreachable
		if ctx.Err() != nil {
			kind = model.KindOf(ctx.Err())
		}
		return 0, model.Errorf(kind, "cannot join any of %q: %v", addrs, errors.Join(errs...))
	}
	return joined, nil
}

// RetryJoin joins servers until ctx ends: it tries those that are not in the
// pool again and again, so that halves which formed apart find each other, with
// waits that grow to every. When none was ever joined in so many tries it fails;
// 0 tries on for ever.
func (g *Gossip) RetryJoin(ctx context.Context, addrs []string, every time.Duration, tries int) error {
	if len(addrs) == 0 {
		return nil
	}
	wait := backoff.Policy{Min: 200 * time.Millisecond, Max: every}
	ever := false
	for n := 0; ; n++ {
		if missing := g.missing(ctx, addrs); len(missing) > 0 {
			joined, err := g.Join(ctx, missing)
			switch {
			case ctx.Err() != nil:
				return nil
			case joined > 0 && !ever:
				g.cfg.Log.Info("joined", "servers", joined)
				ever = true
			case joined > 0:
				// A name with an address that nobody has is joined anew each time.
				g.cfg.Log.Debug("joined again", "servers", joined)
			case !ever && tries > 0 && n+1 >= tries:
				return fmt.Errorf("gave up after %d tries (retry_max): %w", n+1, err)
			case n%10 == 0:
				g.cfg.Log.Warn("cannot join yet; trying on", "error", err)
			}
		} else {
			ever = true
		}
		if !wait.Sleep(ctx, n) {
			return nil
		}
	}
}

// joinOne joins by one address. What is under way when ctx ends then ends by itself,
// within memberlist's TCPTimeout.
func (g *Gossip) joinOne(ctx context.Context, addr string) (int, error) {
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := g.serf.Join([]string{addr}, true)
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		return r.n, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// missing are the addresses at which no member of the pool is alive. Names are
// looked up each time: what is behind one may have moved.
func (g *Gossip) missing(ctx context.Context, addrs []string) (out []string) {
	alive := make(map[string]bool)
	for _, m := range g.serf.Members() {
		if m.Status == serf.StatusAlive {
			alive[net.JoinHostPort(m.Addr.String(), strconv.Itoa(int(m.Port)))] = true
		}
	}
	for _, addr := range addrs {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			host, port = addr, strconv.Itoa(g.port)
		}
		ips, err := g.cfg.Resolve(ctx, host)
		if err != nil {
			out = append(out, addr) // to join it says what is wrong
		}
		for _, ip := range ips {
			if at := net.JoinHostPort(ip, port); !alive[at] {
				out = append(out, at)
			}
		}
	}
	return out
}

// SetCell gossips the identity of our cell.
func (g *Gossip) SetCell(id string) error { return g.setTag(tagCell, id) }

// SetID gossips this server's Raft id, when that is a new one.
func (g *Gossip) SetID(id string) error { return g.setTag(tagID, id) }

func (g *Gossip) setTag(tag, value string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.tags[tag] == value {
		return nil
	}
	next := make(map[string]string, len(g.tags)+1)
	for k, v := range g.tags {
		next[k] = v
	}
	next[tag] = value
	if err := g.serf.SetTags(next); err != nil {
		return fmt.Errorf("cannot gossip %s %q: %w", tag, value, err)
	}
	g.tags = next
	return nil
}

// ForceLeave declares a failed member gone on purpose; prune forgets it at once.
// A name without region is of ours. One that is alive would contradict, and is
// refused.
func (g *Gossip) ForceLeave(name string, prune bool) error {
	for _, m := range g.serf.Members() {
		if m.Name != name && m.Name != name+"."+g.cfg.Region {
			continue
		}
		switch {
		case m.Status == serf.StatusAlive:
			return model.Errorf(model.KindConflict, "server %q is alive: stop it, or let it leave, before it is declared gone", m.Name)
		case prune:
			return g.serf.RemoveFailedNodePrune(m.Name)
		}
		return g.serf.RemoveFailedNode(m.Name)
	}
	return model.NotFound("server", name)
}

// Peers returns the servers of all regions, ourselves included. Members that
// are no servers of ours, that speak another protocol or are of a region that is
// not allowed are left out, with the reason for each unless they have left.
func (g *Gossip) Peers() (peers []Peer, refused []model.RefusedServer) {
	here, _ := g.serf.GetCoordinate()
	for _, m := range g.serf.Members() {
		p, err := peerOf(m)
		if err == nil && !allowed(g.cfg.Regions, g.cfg.Region, p.Region) {
			err = fmt.Errorf("region %q is not among those of federation.regions", p.Region)
		}
		if err != nil {
			if m.Status != serf.StatusLeft {
				refused = append(refused, model.RefusedServer{Name: m.Name, Region: m.Tags[tagRegion], RPC: m.Tags[tagRPC], Build: m.Tags[tagBuild], Alive: m.Status == serf.StatusAlive, Cause: err.Error()})
			}
			continue
		}
		if there, ok := g.serf.GetCachedCoordinate(m.Name); ok && here != nil {
			p.RTT = roundTrip(here, there)
		}
		peers = append(peers, p)
	}
	return peers, refused
}

// allowed reports whether a region may be spoken with; no list allows all.
func allowed(list []string, own, region string) bool {
	return len(list) == 0 || region == own || slices.Contains(list, region)
}

func roundTrip(a, b *coordinate.Coordinate) time.Duration {
	if !a.IsCompatibleWith(b) {
		return 0
	}
	return a.DistanceTo(b)
}

func peerOf(m serf.Member) (Peer, error) {
	t := m.Tags
	if t[tagRole] != roleServer {
		return Peer{}, fmt.Errorf("its role is %q, not %q", t[tagRole], roleServer)
	}
	lo, err1 := strconv.Atoi(t[tagMin])
	hi, err2 := strconv.Atoi(t[tagMax])
	if errors.Join(err1, err2) != nil || lo > Protocol || hi < Protocol {
		return Peer{}, fmt.Errorf("it speaks protocols %s to %s, and this server speaks %d", t[tagMin], t[tagMax], Protocol)
	}
	if t[tagRegion] == "" || t[tagID] == "" {
		return Peer{}, errors.New("it names no region or no id")
	}
	if _, _, err := splitAddr(t[tagRPC]); err != nil {
		return Peer{}, err
	}
	expect, _ := strconv.Atoi(t[tagExpect])
	return Peer{
		Name: m.Name, Region: t[tagRegion], Datacenter: t[tagDC], ID: t[tagID], RPC: t[tagRPC], Expect: expect,
		Cell: t[tagCell], Build: t[tagBuild], ProtocolMin: lo, ProtocolMax: hi, Alive: m.Status == serf.StatusAlive,
		Left: m.Status == serf.StatusLeft,
	}, nil
}

// Members returns the pool as Nomad's API shows it.
func (g *Gossip) Members() []*model.Member {
	var out []*model.Member
	for _, m := range g.serf.Members() {
		out = append(out, &model.Member{
			Name: m.Name, Addr: m.Addr.String(), Port: m.Port, Tags: m.Tags, Status: m.Status.String(),
			ProtocolMin: m.ProtocolMin, ProtocolMax: m.ProtocolMax, ProtocolCur: m.ProtocolCur,
			DelegateMin: m.DelegateMin, DelegateMax: m.DelegateMax, DelegateCur: m.DelegateCur,
		})
	}
	return out
}
