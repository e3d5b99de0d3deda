package agent

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/hashicorp/go-sockaddr/template"

	"atoll/agent/config"
)

// addresses are where the agent listens, and how others reach it. An advertised
// one without a port is completed once its listener is known.
type addresses struct {
	bindHTTP, bindRPC, bindSerf string
	http, rpc, serf             string
}

// resolve works the addresses out, templates such as {{ GetPrivateIP }} too.
func resolve(cfg *config.Config) (*addresses, error) {
	for key, at := range map[string]*string{
		"bind_addr": &cfg.BindAddr, "addresses.http": &cfg.Addresses.HTTP, "addresses.rpc": &cfg.Addresses.RPC, "addresses.serf": &cfg.Addresses.Serf,
		"advertise.http": &cfg.Advertise.HTTP, "advertise.rpc": &cfg.Advertise.RPC, "advertise.serf": &cfg.Advertise.Serf,
	} {
		if !strings.Contains(*at, "{{") {
			continue
		}
		v, err := template.Parse(*at)
		if err != nil || strings.TrimSpace(v) == "" || strings.ContainsAny(v, " ,") {
			return nil, fmt.Errorf("cannot use %s: the template %q gives %q, not one address", key, *at, v)
		}
		*at = v
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	out := &addresses{bindHTTP: cfg.HTTPAddr(), bindRPC: cfg.RPCAddr(), bindSerf: cfg.SerfAddr()}
	for _, a := range []struct {
		key, given, bind string
		to               *string
	}{
		{"advertise.http", cfg.Advertise.HTTP, out.bindHTTP, &out.http},
		{"advertise.rpc", cfg.Advertise.RPC, out.bindRPC, &out.rpc},
		{"advertise.serf", cfg.Advertise.Serf, out.bindSerf, &out.serf},
	} {
		v, err := advertise(a.given, a.bind)
		if err != nil {
			return nil, fmt.Errorf("cannot use %s: %w", a.key, err)
		}
		*a.to = v
	}
	return out, nil
}

// advertise is the address that others use: the given one, else that which is
// listened on, else the machine's private one.
func advertise(given, bind string) (string, error) {
	bindHost, port, err := net.SplitHostPort(bind)
	if err != nil {
		return "", err
	}
	if given != "" {
		if host, p, err := net.SplitHostPort(given); err == nil {
			return net.JoinHostPort(host, p), nil
		}
		return net.JoinHostPort(strings.Trim(given, "[]"), port), nil
	}
	if ip := net.ParseIP(bindHost); ip == nil || !ip.IsUnspecified() {
		return bind, nil
	}
	private, err := template.Parse("{{ GetPrivateIP }}")
	if err != nil || private == "" {
		return "", fmt.Errorf("the agent listens on every address and this machine has no private one: say which others shall use")
	}
	return net.JoinHostPort(private, port), nil
}

// advertised completes an advertised address whose port was left to the system.
func advertised(addr string, l net.Listener) string {
	host, port, err := net.SplitHostPort(addr)
	if tcp, ok := l.Addr().(*net.TCPAddr); err == nil && ok && port == "0" {
		return net.JoinHostPort(host, strconv.Itoa(tcp.Port))
	}
	return addr
}
