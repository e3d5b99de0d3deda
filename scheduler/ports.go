package scheduler

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"atoll/model"
)

// portSet is the ports in use on a node, one bit each.
type portSet [65536 / 64]uint64

func (p *portSet) has(port int) bool { return p[port>>6]&(1<<(port&63)) != 0 }
func (p *portSet) add(port int)      { p[port>>6] |= 1 << (port & 63) }
func (p *portSet) drop(port int)     { p[port>>6] &^= 1 << (port & 63) }

// usedPorts is a node's ports that rows hold or the operator reserved.
func usedPorts(n *model.Node, held []uint16) *portSet {
	p := new(portSet)
	for _, port := range held {
		p.add(int(port))
	}
	if n.ReservedResources != nil {
		reservePorts(p, n.ReservedResources.Networks.ReservedHostPorts)
	}
	return p
}

// release takes the ports of freed rows out of a set of what is held, but for those
// that another row holds too. freed are all that are free.
func (p *portSet) release(held []uint16, freed []*model.AllocRow, rows ...*model.AllocRow) {
	for _, r := range rows {
		r.HostPorts(func(port int) {
			at, _ := slices.BinarySearch(held, uint16(port))
			holders := 0
			for at+holders < len(held) && int(held[at+holders]) == port {
				holders++
			}
			for _, f := range freed {
				f.HostPorts(func(other int) {
					if other == port {
						holders--
					}
				})
			}
			if holders <= 0 {
				p.drop(port)
			}
		})
	}
}

// reservePorts adds ports written as "22,80,8000-8010"; what is no port is
// passed over, since the node said it, not the user.
func reservePorts(p *portSet, spec string) {
	for _, part := range strings.Split(spec, ",") {
		lo, hi, isRange := strings.Cut(strings.TrimSpace(part), "-")
		from, err := strconv.Atoi(lo)
		if err != nil {
			continue
		}
		to := from
		if isRange {
			if to, err = strconv.Atoi(hi); err != nil {
				continue
			}
		}
		for port := max(from, 0); port <= min(to, 65535); port++ {
			p.add(port)
		}
	}
}

// asksPorts reports whether allocations of g take ports.
func asksPorts(g *model.TaskGroup) bool {
	for _, n := range networksOf(g) {
		if len(n.ReservedPorts)+len(n.DynamicPorts) > 0 {
			return true
		}
	}
	return false
}

// networksOf is the first network of the group and of each task, which are
// those that count.
func networksOf(g *model.TaskGroup) []*model.NetworkResource {
	var out []*model.NetworkResource
	if len(g.Networks) > 0 {
		out = append(out, g.Networks[0])
	}
	for _, t := range g.Tasks {
		if len(t.Resources.Networks) > 0 {
			out = append(out, t.Resources.Networks[0])
		}
	}
	return out
}

// assignPorts gives an allocation of g its ports out of those not in used, and
// adds them to it. When it cannot, it says in which dimension, and used is as
// before.
func assignPorts(g *model.TaskGroup, n *model.Node, used *portSet, rng *rand.Rand) (*model.AllocExtra, string) {
	ip := ""
	if r := n.NodeResources; r != nil && len(r.Networks) > 0 {
		ip = r.Networks[0].IP
	}
	var taken []int
	fail := func(why string) (*model.AllocExtra, string) {
		for _, p := range taken {
			used.drop(p)
		}
		return nil, "network: " + why
	}
	// Static ports first, all of them: a dynamic one must not take one.
	networks := networksOf(g)
	for _, nw := range networks {
		for _, p := range nw.ReservedPorts {
			if p.Value < 0 || p.Value > 65535 {
				return fail(fmt.Sprintf("invalid port %s=%d", p.Label, p.Value))
			}
			if used.has(p.Value) {
				if p.IgnoreCollision {
					continue
				}
				return fail(fmt.Sprintf("reserved port collision %s=%d", p.Label, p.Value))
			}
			used.add(p.Value)
			taken = append(taken, p.Value)
		}
	}
	give := func(nw *model.NetworkResource) (*model.NetworkResource, bool) {
		out := &model.NetworkResource{Mode: nw.Mode, Device: nw.Device, IP: ip, MBits: nw.MBits, Hostname: nw.Hostname}
		out.ReservedPorts = append(out.ReservedPorts, nw.ReservedPorts...)
		for _, p := range nw.DynamicPorts {
			port, ok := freePort(n, used, rng)
			if !ok {
				return nil, false
			}
			used.add(port)
			taken = append(taken, port)
			p.Value = port
			if p.To == -1 {
				p.To = port
			}
			out.DynamicPorts = append(out.DynamicPorts, p)
		}
		return out, true
	}
	x := &model.AllocExtra{}
	if len(g.Networks) > 0 {
		out, ok := give(g.Networks[0])
		if !ok {
			return fail("dynamic port selection failed")
		}
		x.Networks = []*model.NetworkResource{out}
		for _, ports := range [][]model.Port{out.ReservedPorts, out.DynamicPorts} {
			for _, p := range ports {
				x.Ports = append(x.Ports, model.PortMapping{Label: p.Label, Value: p.Value, To: p.To, HostIP: ip, IgnoreCollision: p.IgnoreCollision})
			}
		}
	}
	for _, t := range g.Tasks {
		if len(t.Resources.Networks) == 0 {
			continue
		}
		out, ok := give(t.Resources.Networks[0])
		if !ok {
			return fail("dynamic port selection failed")
		}
		if x.TaskNetworks == nil {
			x.TaskNetworks = make(map[string]*model.NetworkResource)
		}
		x.TaskNetworks[t.Name] = out
	}
	return x, ""
}

// freePort finds a dynamic port from a random start.
func freePort(n *model.Node, used *portSet, rng *rand.Rand) (int, bool) {
	lo, hi := model.DefaultMinDynamicPort, model.DefaultMaxDynamicPort
	if r := n.NodeResources; r != nil && r.MaxDynamicPort > 0 {
		lo, hi = max(r.MinDynamicPort, 1), min(r.MaxDynamicPort, 65535)
	}
	size := hi - lo + 1
	if size <= 0 {
		return 0, false
	}
	start := rng.IntN(size)
	for i := range size {
		if port := lo + (start+i)%size; !used.has(port) {
			return port, true
		}
	}
	return 0, false
}
