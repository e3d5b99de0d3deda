package main

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
)

// Between the command line and the agent, each write's first reply is lost.
func TestCommandsSendTheirWritesAgainWhenTheReplyIsLost(t *testing.T) {
	m := newTerminal(t)
	agent, err := url.Parse(m.url)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex // guards what follows
	tokens := make(map[string]int)
	lost := 0
	proxy := httputil.NewSingleHostReverseProxy(agent)
	proxy.ModifyResponse = func(resp *http.Response) error {
		if resp.Request.Method == http.MethodGet {
			return nil
		}
		token := resp.Request.URL.Query().Get("idempotency_token")
		mu.Lock()
		defer mu.Unlock()
		if token == "" {
			t.Errorf("%s %s has no token", resp.Request.Method, resp.Request.URL)
		}
		if tokens[token]++; tokens[token] == 1 {
			lost++
			panic(http.ErrAbortHandler)
		}
		return nil
	}
	front := httptest.NewServer(proxy)
	defer front.Close()
	m.url = front.URL

	m.expect(0, nil, "job", "run", "-detach", m.job("web", "", 1, "a"))
	m.expect(0, nil, "job", "scale", "-detach", "web", "3")
	m.expect(0, nil, "namespace", "apply", "-description", "x", "team")
	m.expect(0, nil, "job", "stop", "-detach", "web")
	m.expect(0, nil, "namespace", "delete", "team")
	mu.Lock()
	defer mu.Unlock()
	if lost < 5 {
		t.Errorf("%d replies were lost", lost)
	}
	c, err := api.NewClient(&api.Config{Address: agent.String()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	versions, _, _, err := c.Jobs().Versions("web", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The submit, the scaling and the stop, once each.
	if len(versions) != 3 {
		t.Errorf("the job has %d versions, want 3", len(versions))
	}
}

func TestWithoutAnAgentACommandFailsAtOnce(t *testing.T) {
	m := &terminal{t: t, url: "http://127.0.0.1:1", dir: t.TempDir()}
	begun := time.Now()
	m.expect(1, []string{"connection refused"}, "job", "stop", "-detach", "-namespace", "default", "web")
	m.expect(1, []string{"connection refused"}, "namespace", "delete", "team")
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}
