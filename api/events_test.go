package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	nomad "github.com/hashicorp/nomad/api"
)

// stream opens an event stream by the official client.
func (s *surface) stream(topics map[nomad.Topic][]string, index uint64, q *nomad.QueryOptions) <-chan *nomad.Events {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	s.t.Cleanup(cancel)
	if q == nil {
		q = &nomad.QueryOptions{}
	}
	ch, err := s.official().EventStream().Stream(ctx, topics, index, q)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		cancel()
		for range ch { // until it is closed
		}
	})
	return ch
}

// next is the next of a stream's events that find accepts.
func next(t *testing.T, ch <-chan *nomad.Events, what string, find func(*nomad.Event) bool) *nomad.Event {
	t.Helper()
	late := time.After(30 * time.Second)
	for {
		select {
		case events, ok := <-ch:
			if !ok || events.Err != nil {
				t.Fatalf("the stream ended without %s: %+v", what, events)
			}
			for i := range events.Events {
				if e := &events.Events[i]; e.Index != events.Index {
					t.Errorf("an event of index %d among those of %d", e.Index, events.Index)
				} else if find(e) {
					return e
				}
			}
		case <-late:
			t.Fatalf("no event: %s", what)
		}
	}
}

func of(topic nomad.Topic, kind, key string) func(*nomad.Event) bool {
	return func(e *nomad.Event) bool {
		return e.Topic == topic && e.Type == kind && (key == "" || e.Key == key || slices.Contains(e.FilterKeys, key))
	}
}

func TestTheOfficialClientReadsEvents(t *testing.T) {
	s := newSurface(t, "us")
	all := s.stream(nil, 0, nil)
	jobs := s.stream(map[nomad.Topic][]string{nomad.TopicJob: {"db"}, nomad.TopicAllocation: {"db"}}, 0, nil)
	elsewhere := s.stream(nil, 0, &nomad.QueryOptions{Namespace: "other"})
	n := s.addNode()
	s.register(aJob("web"))

	if node, err := next(t, all, "the node", of(nomad.TopicNode, "NodeRegistration", n.ID)).Node(); err != nil || node.Name != "n1" || node.Status != "ready" {
		t.Errorf("node %+v, %v", node, err)
	}
	e := next(t, all, "the job", of(nomad.TopicJob, "JobRegistered", "web"))
	if job, err := e.Job(); err != nil || *job.ID != "web" || *job.TaskGroups[0].Count != 1 {
		t.Errorf("job %+v, %v", job, err)
	}
	if eval, err := next(t, all, "its evaluation", of(nomad.TopicEvaluation, "JobRegistered", "web")).Evaluation(); err != nil || eval.JobID != "web" || eval.Status != "pending" {
		t.Errorf("evaluation %+v, %v", eval, err)
	}
	if d, err := next(t, all, "its deployment", of(nomad.TopicDeployment, "PlanResult", "web")).Deployment(); err != nil || d.JobID != "web" {
		t.Errorf("deployment %+v, %v", d, err)
	}
	alloc, err := next(t, all, "its allocation", of(nomad.TopicAllocation, "PlanResult", "web")).Allocation()
	if err != nil || alloc.NodeID != n.ID || alloc.NodeName != "n1" || alloc.Job != nil || alloc.DesiredStatus != "run" {
		t.Errorf("allocation %+v, %v", alloc, err)
	}
	next(t, all, "the evaluation's end", func(e *nomad.Event) bool {
		eval, err := e.Evaluation()
		return err == nil && eval != nil && e.Type == "EvaluationUpdated" && eval.Status == "complete"
	})

	s.register(aJob("db"))
	if got := next(t, jobs, "anything of the job", func(*nomad.Event) bool { return true }); got.Topic != nomad.TopicJob || got.Key != "db" {
		t.Errorf("the first event about the job db is %+v", got)
	}
	placed := next(t, jobs, "its allocation", of(nomad.TopicAllocation, "PlanResult", "db"))
	if a := s.do("DELETE", "/v1/job/db?purge=true", nil); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if _, purged, err := next(t, jobs, "the job's end", of(nomad.TopicJob, "JobDeregistered", "db")).DeregisteredJob(); err != nil || !purged {
		t.Errorf("purged %v, %v", purged, err)
	}
	// From an index on, it included: nothing before, nothing lost.
	again := next(t, s.stream(map[nomad.Topic][]string{nomad.TopicAllocation: nil}, placed.Index, nil), "anything", func(*nomad.Event) bool { return true })
	if again.Index != placed.Index || again.Key != placed.Key {
		t.Errorf("from index %d on the first event is %+v, want that of %s", placed.Index, again, placed.Key)
	}
	// Of another namespace there is the node alone.
	if got := next(t, elsewhere, "anything", func(*nomad.Event) bool { return true }); got.Topic != nomad.TopicNode {
		t.Errorf("an event of another namespace: %+v", got)
	}
	if len(elsewhere) != 0 {
		t.Errorf("more events of another namespace: %+v", <-elsewhere)
	}
}

func TestEventsOfAnotherRegion(t *testing.T) {
	us := newSurface(t, "us")
	eu := newSurface(t, "eu", us.serf)
	wait(t, "two regions", func() error {
		if names, _ := get[[]string](us, "/v1/regions"); len(names) != 2 {
			return fmt.Errorf("%v", names)
		}
		return nil
	})
	there := us.stream(nil, 0, &nomad.QueryOptions{Region: "eu"})
	us.register(aJob("here"))
	eu.register(aJob("there"))
	if e := next(t, there, "a job", func(e *nomad.Event) bool { return e.Topic == nomad.TopicJob }); e.Key != "there" {
		t.Errorf("the stream of eu tells of job %q", e.Key)
	}
	if a := us.do("GET", "/v1/event/stream?region=*", nil); a.status != http.StatusBadRequest {
		t.Errorf("all regions: %d %s", a.status, a.body)
	}
}

// lines reads an event stream as it is.
func (s *surface) lines(path string) (*bufio.Reader, *http.Response) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", s.url+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", "gzip")
	resp, err := s.web.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { cancel(); _ = resp.Body.Close() })
	return bufio.NewReader(resp.Body), resp
}

func TestAStreamSaysWhenEventsMayBeMissing(t *testing.T) {
	s := newSurface(t, "us")
	s.register(aJob("web"))
	at := s.register(aJob("db")).index()

	whole, resp := s.lines(fmt.Sprintf("/v1/event/stream?topic=Job&index=%d", at))
	if line, err := whole.ReadString('\n'); err != nil || line != "{}\n" || resp.Header.Get("X-Atoll-Event-Gap") != "" || resp.Header.Get("Content-Encoding") != "" {
		t.Errorf("the first line is %q, %v, with the header %v", line, err, resp.Header)
	}
	if line, err := whole.ReadString('\n'); err != nil || !strings.Contains(line, `"Key":"db"`) {
		t.Errorf("the second line is %q, %v", line, err)
	}

	archive := s.do("GET", "/v1/operator/snapshot", nil)
	if a := s.do("PUT", "/v1/operator/snapshot", archive.body); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	// Readers of the old state are told, and broken off.
	var last string
	for {
		line, err := whole.ReadString('\n')
		if err != nil {
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("the stream ended by %v", err)
			}
			break
		}
		last = line
	}
	var end struct{ Error string }
	if err := json.Unmarshal([]byte(last), &end); err != nil || !strings.Contains(end.Error, "cannot go on with the event stream") {
		t.Errorf("the last line is %q", last)
	}
	// Those who come back for what is gone learn that it is.
	broken, resp := s.lines(fmt.Sprintf("/v1/event/stream?index=%d", at+1))
	gap := struct {
		Index  uint64
		Events []any
		Gap    struct{ From, To uint64 }
	}{}
	line, err := broken.ReadString('\n')
	if err == nil {
		err = json.Unmarshal([]byte(line), &gap)
	}
	if err != nil || gap.Gap.From != at+1 || gap.Gap.To <= at || gap.Index != gap.Gap.To || gap.Events == nil ||
		resp.Header.Get("X-Atoll-Event-Gap") != fmt.Sprintf("%d-%d", gap.Gap.From, gap.Gap.To) {
		t.Errorf("the first line is %q, %v; the header %q", line, err, resp.Header.Get("X-Atoll-Event-Gap"))
	}
	s.register(aJob("later"))
	for !strings.Contains(line, `"Key":"later"`) {
		if line, err = broken.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	if _, resp := s.lines(fmt.Sprintf("/v1/event/stream?index=%d", gap.Gap.To+1)); resp.Header.Get("X-Atoll-Event-Gap") != "" {
		t.Errorf("nothing is missing after %d, but the header says %q", gap.Gap.To, resp.Header.Get("X-Atoll-Event-Gap"))
	}
}

func TestTopicsThatAreNoneAreRefused(t *testing.T) {
	s := newSurface(t, "us")
	for path, want := range map[string]int{"topic=Jobs": 400, "topic=Service": 501, "topic=Job&topic=ACLToken:*": 501, "index=-1": 400, "region=mars": 500} {
		if a := s.do("GET", "/v1/event/stream?"+path, nil); a.status != want {
			t.Errorf("%s: %d %s, want %d", path, a.status, a.body, want)
		}
	}
}
