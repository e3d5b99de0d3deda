package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"atoll/model"
)

// script is a transport that answers as a test says: one word an attempt, the last
// one for ever. It notes what was sent.
type script struct {
	words []string
	mu    sync.Mutex
	sent  []string // token and body of each
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	body := ""
	if r.Body != nil {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		body = string(b)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	word := s.words[min(len(s.sent), len(s.words)-1)]
	s.sent = append(s.sent, r.URL.Query().Get("idempotency_token")+"|"+r.Header.Get(HeaderRequestID)+"|"+body)
	answer := func(status int, kind, body string) *http.Response {
		h := http.Header{}
		if kind != "" {
			h.Set(HeaderError, kind)
		}
		return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: r}
	}
	switch word {
	case "ok":
		return answer(200, "", "done"), nil
	case "refused":
		return nil, &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	case "lost":
		return nil, io.EOF
	case "broken":
		resp := answer(200, "", "")
		resp.Body = io.NopCloser(io.MultiReader(strings.NewReader("do"), errReader{}))
		return resp, nil
	}
	resp := answer(500, word, "it is "+word)
	if word == "outcome_unknown" && !strings.HasPrefix(r.URL.Path, "/v1/system/") {
		resp.Header.Set(HeaderRequestID, "token")
	}
	return resp, nil
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestAWriteIsSentAgainWithItsTokenUntilItsOutcomeIsKnown(t *testing.T) {
	for name, c := range map[string]struct {
		verb, words string
		attempts    int    // 0: any number above one
		end         string // body, or what the error says
	}{
		"it is answered":                    {"PUT", "ok", 1, "done"},
		"the reply is lost":                 {"PUT", "lost lost ok", 3, "done"},
		"the reply breaks off":              {"POST", "broken ok", 2, "done"},
		"the agent does not know":           {"DELETE", "outcome_unknown ok", 2, "done"},
		"the region has no leader":          {"PUT", "no_leader no_leader ok", 3, "done"},
		"no agent is there":                 {"PUT", "refused", 1, "connection refused"},
		"the agent restarts":                {"PUT", "lost refused refused ok", 4, "done"},
		"the agent goes for good":           {"PUT", "lost refused", 0, "applied, and could not be sent again within 20s: look before you repeat it: EOF"},
		"it is refused":                     {"PUT", "conflict", 1, "it is conflict"},
		"a region is out of reach":          {"PUT", "unreachable", 1, "it is unreachable"},
		"it is so with the outcome unknown": {"PUT", "outcome_unknown unreachable ok", 3, "done"},
		"it is refused after a lost reply":  {"PUT", "lost conflict", 2, "it is conflict"},
		"a busy agent after a lost reply":   {"PUT", "lost busy forbidden internal ok", 5, "done"},
		"a lost reply, and then no room":    {"PUT", "lost busy", 0, "may or may not have been applied"},
		"an agent that is busy":             {"PUT", "busy", 1, "it is busy"},
		"it is lost for good":               {"PUT", "lost", 0, "may or may not have been applied"},
		"its outcome is never known":        {"PUT", "outcome_unknown unreachable", 0, "it is outcome_unknown"},
		"there is never a leader":           {"PUT", "no_leader", 0, "it is no_leader"},
		"a read is not sent again":          {"GET", "lost", 1, "EOF"},
		"a read has its answer as it is":    {"GET", "no_leader", 1, "it is no_leader"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &script{words: strings.Fields(c.words)}
			req, err := http.NewRequest(c.verb, "http://agent/v1/jobs?region=eu", strings.NewReader("job"))
			if err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			resp, err := (&Retry{Base: s}).RoundTrip(req)
			took := time.Since(begun)
			got := ""
			if err != nil {
				got = err.Error()
			} else {
				got = text(resp)
			}
			if !strings.Contains(got, c.end) || c.attempts > 0 && len(s.sent) != c.attempts {
				t.Errorf("%s: %q after %d attempts, want %q", name, got, len(s.sent), c.end)
			}
			if c.attempts == 0 && (len(s.sent) < 8 || len(s.sent) > 40 || took < 17*time.Second || took > 21*time.Second) {
				t.Errorf("%s: %d attempts in %s", name, len(s.sent), took)
			}
			if c.verb == "GET" {
				if s.sent[0] != "||job" {
					t.Errorf("%s: sent %q", name, s.sent[0])
				}
				return
			}
			token, _, _ := strings.Cut(s.sent[0], "|")
			if model.RequestIssued(token) == 0 || slices.ContainsFunc(s.sent, func(o string) bool { return o != token+"||job" }) {
				t.Errorf("%s: sent %q", name, s.sent)
			}
			if req.URL.RawQuery != "region=eu" {
				t.Errorf("%s: the caller's request became %s", name, req.URL)
			}
		})
	}
}

func TestTokensOfACallersOwnAreKept(t *testing.T) {
	for path, want := range map[string]string{
		"/v1/job/a/dispatch?idempotency_token=mine": "mine|",
		"/v1/job/a?idempotency_token=mine":          "mine|",
	} {
		s := &script{words: []string{"lost", "ok"}}
		req, _ := http.NewRequest("PUT", "http://agent"+path, nil)
		if _, err := (&Retry{Base: s}).RoundTrip(req); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(s.sent, []string{want + "|", want + "|"}) {
			t.Errorf("%s: sent %q", path, s.sent)
		}
	}
	// A dispatch without one has ours where its jobs do not see it.
	s := &script{words: []string{"lost", "ok"}}
	req, _ := http.NewRequest("PUT", "http://agent/v1/job/a/dispatch", nil)
	if _, err := (&Retry{Base: s}).RoundTrip(req); err != nil {
		t.Fatal(err)
	}
	query, header, _ := strings.Cut(s.sent[0], "|")
	if query != "" || model.RequestIssued(strings.Trim(header, "|")) == 0 || s.sent[1] != s.sent[0] {
		t.Errorf("sent %q", s.sent)
	}
}

func TestABodyThatCannotBeReadAgainIsSentOnce(t *testing.T) {
	s := &script{words: []string{"lost"}}
	req, _ := http.NewRequest("PUT", "http://agent/v1/operator/snapshot", io.NopCloser(strings.NewReader("snapshot")))
	if _, err := (&Retry{Base: s}).RoundTrip(req); !errors.Is(err, io.EOF) || len(s.sent) != 1 {
		t.Errorf("%v after %d attempts", err, len(s.sent))
	}
}

func TestAWriteThatNoTokenMakesApplyOnceIsSentOnce(t *testing.T) {
	for name, c := range map[string]struct {
		path, words string
		attempts    int
		end         string
	}{
		"a member is removed, and the reply lost":         {"/v1/operator/raft/peer?id=a", "lost ok", 1, "may or may not have been applied: look before you repeat it: EOF"},
		"so it is after there was no leader":              {"/v1/operator/raft/peer?id=a", "no_leader lost ok", 2, "may or may not have been applied"},
		"the leadership moves, and the agent cannot tell": {"/v1/operator/raft/transfer-leadership", "outcome_unknown ok", 1, "it is outcome_unknown"},
		"the agent cannot tell, and has no token":         {"/v1/system/gc", "outcome_unknown ok", 1, "it is outcome_unknown"},
		"there is no leader yet":                          {"/v1/operator/raft/transfer-leadership", "no_leader ok", 2, "done"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &script{words: strings.Fields(c.words)}
			req, err := http.NewRequest("PUT", "http://agent"+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if resp, err := (&Retry{Base: s}).RoundTrip(req); err != nil {
				got = err.Error()
			} else {
				got = text(resp)
			}
			if !strings.Contains(got, c.end) || len(s.sent) != c.attempts {
				t.Errorf("%s: %q after %d attempts", name, got, len(s.sent))
			}
		})
	}
}

func TestACallersEndEndsTheAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		s := &script{words: []string{"lost"}}
		req, _ := http.NewRequestWithContext(ctx, "PUT", "http://agent/v1/jobs", nil)
		begun := time.Now()
		if _, err := (&Retry{Base: s}).RoundTrip(req); err == nil || time.Since(begun) != 3*time.Second {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
	})
}

// The real transport says in its own way that nobody is there, and that a reply
// was lost.
func TestOverARealConnection(t *testing.T) {
	n := 0
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n++; n < 3 {
			panic(http.ErrAbortHandler)
		}
		b, _ := io.ReadAll(r.Body)
		_, _ = w.Write(b)
	}))
	base := &http.Transport{}
	defer base.CloseIdleConnections()
	c := &http.Client{Transport: &Retry{Base: base}}
	post := func() (string, error) {
		resp, err := c.Post(agent.URL+"/v1/jobs", "application/json", strings.NewReader("job"))
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		return text(resp), nil
	}
	if got, err := post(); err != nil || got != "job" || n != 3 {
		t.Errorf("%q, %v after %d attempts", got, err, n)
	}
	agent.Close()
	base.CloseIdleConnections()
	begun := time.Now()
	if _, err := post(); err == nil || time.Since(begun) > time.Second {
		t.Errorf("with nobody there: %v after %s", err, time.Since(begun))
	}
}
