package summary

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// here serves every call in this process, whatever its region.
type here struct{}

func (here) Region() string { return "us" }
func (here) Route(context.Context, *rpc.Envelope, method.Spec) (rpc.Decision, error) {
	return rpc.Decision{Local: true}, nil
}
func (here) Report(string, string, error, time.Duration) {}
func (here) Leads(string, string)                        {}

func (here) Unreachable(region string, cause error) *model.Error {
	return &model.Error{Kind: model.KindUnreachable, Region: region}
}

// source is a region that tells of its jobs.
type source struct {
	mu    sync.Mutex // guards what follows
	state string
	index uint64
	jobs  map[string]*model.JobRow
	// changed are the ids changed at indexes after forgotten.
	changed   map[uint64]string
	forgotten uint64
	// cut makes every question fail, slow makes each take as long.
	cut     error
	slow    time.Duration
	contact time.Duration
	// answer, unless nil, is sent instead.
	answer []*method.SummaryFrame
	asked  []method.SummaryPullRequest
}

func newSource() *source {
	return &source{state: "cell/1", jobs: map[string]*model.JobRow{}, changed: map[uint64]string{}}
}

func (s *source) do(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// put writes jobs; a name that begins with a minus is deleted.
func (s *source) put(status string, ids ...string) {
	s.do(func() {
		for _, id := range ids {
			s.index++
			id, gone := strings.CutPrefix(id, "-")
			s.changed[s.index] = id
			if gone {
				delete(s.jobs, id)
			} else {
				s.jobs[id] = &model.JobRow{Namespace: "default", ID: id, Status: status, ModifyIndex: s.index}
			}
		}
	})
}

// count is how often it was asked.
func (s *source) count() (n int) {
	s.do(func() { n = len(s.asked) })
	return n
}

func (s *source) pull(_ context.Context, _ *rpc.Inbound, req *method.SummaryPullRequest, send func(*method.SummaryFrame) error) error {
	s.mu.Lock()
	s.asked = append(s.asked, *req)
	cut, slow, answer := s.cut, s.slow, s.answer
	s.mu.Unlock()
	time.Sleep(slow)
	if cut != nil {
		return cut
	}
	if answer != nil {
		for _, f := range answer {
			if err := send(f); err != nil {
				return err
			}
		}
		return nil
	}
	s.mu.Lock()
	d := &Delta{State: s.state, Index: s.index, LastContact: s.contact}
	if req.Report {
		d.Report = &model.RegionReport{CellID: "cell", Leader: "leader"}
	}
	d.Full = req.State != s.state || req.Since < s.forgotten
	if d.Full {
		for _, j := range s.jobs {
			row := *j
			d.Rows.Jobs = append(d.Rows.Jobs, &row)
		}
	} else {
		ids := map[string]bool{}
		for index, id := range s.changed {
			if index > req.Since {
				ids[id] = true
			}
		}
		for id := range ids {
			if j := s.jobs[id]; j != nil {
				row := *j
				d.Rows.Jobs = append(d.Rows.Jobs, &row)
			} else {
				d.Rows.GoneJobs = append(d.Rows.GoneJobs, model.RowKey{Namespace: "default", ID: id})
			}
		}
	}
	s.mu.Unlock()
	return Send(d, send)
}

// world is regions and the copies that a server of us has of them.
type world struct {
	t       *testing.T
	sources map[string]*source
	copies  *Copies
	known   map[string]model.RegionStatus
	mu      sync.Mutex // guards known
}

func follow(t *testing.T, limit int64, regions ...string) *world {
	w := &world{t: t, sources: map[string]*source{}, known: map[string]model.RegionStatus{"us": {Name: "us"}}}
	s := rpc.NewServer(rpc.ServerConfig{Router: here{}})
	for _, name := range regions {
		w.sources[name] = newSource()
		w.known[name] = model.RegionStatus{Name: name, CellID: "cell"}
	}
	rpc.HandleStream(s, method.SummaryPull, func(ctx context.Context, c *rpc.Inbound, req *method.SummaryPullRequest, send func(*method.SummaryFrame) error) error {
		return w.sources[c.Envelope.Region].pull(ctx, c, req, send)
	})
	w.copies = NewCopies(Config{Region: "us", Caller: s, Limit: limit, Regions: func() []model.RegionStatus {
		w.mu.Lock()
		defer w.mu.Unlock()
		return slices.Collect(maps.Values(w.known))
	}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.copies.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

// settle lets two rounds of questions pass.
func settle() {
	time.Sleep(2*idlePull + time.Millisecond)
	synctest.Wait()
}

// same checks that the copy of a region has what the region has.
func (w *world) same(region string) {
	w.t.Helper()
	s, c := w.sources[region], w.copies.Of(region)
	if c == nil {
		w.t.Fatalf("there is no copy of %s", region)
	}
	rows, err := Take(c.Jobs.Select(region, &Selection[*model.JobRow]{Namespace: "*"}), 0)
	if err != nil {
		w.t.Fatal(err)
	}
	by := map[string]int{}
	for _, r := range rows {
		if j := s.jobs[r.ID]; j == nil || j.ModifyIndex != r.ModifyIndex || r.Region != region {
			w.t.Errorf("the copy has %+v, the region %+v", r, j)
		}
		by[r.Status]++
	}
	if len(rows) != len(s.jobs) || c.Jobs.Len() != len(s.jobs) || !maps.Equal(by, c.Jobs.Counts()) {
		w.t.Errorf("the copy has %d rows, %v, the region %d", len(rows), c.Jobs.Counts(), len(s.jobs))
	}
}

func TestACopyKeepsUpByChangesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := follow(t, 0, "eu", "ap")
		eu := w.sources["eu"]
		for i := range 2500 {
			eu.put("running", fmt.Sprintf("job-%04d", i))
		}
		settle()
		w.same("eu")
		w.same("ap")
		full := w.copies.Traffic("eu")
		if full.Full != 1 || full.Rows != 2500 {
			t.Errorf("the first copy: %+v", full)
		}
		if r := w.copies.Of("eu").Report; r == nil || r.Leader != "leader" {
			t.Errorf("its report is %+v", r)
		}
		old := w.copies.Of("eu")
		eu.put("dead", "job-0007", "new", "-job-0001", "job-0007", "-never")
		settle()
		w.same("eu")
		now := w.copies.Traffic("eu")
		if now.Full != 1 || now.Rows-full.Rows != 4 || now.Bytes-full.Bytes > 1000 || now.Bytes == full.Bytes {
			t.Errorf("five changes of four rows cost %+v after %+v", now, full)
		}
		// What somebody holds stays as it was.
		if row, ok := old.Jobs.Get(model.RowKey{Namespace: "default", ID: "job-0007"}); !ok || row.Status != "running" || old.Jobs.Len() != 2500 {
			t.Errorf("the older copy changed: %+v, %d", row, old.Jobs.Len())
		}
		// Nothing new costs nothing but the question.
		before := w.copies.Traffic("eu")
		time.Sleep(20 * time.Second)
		after := w.copies.Traffic("eu")
		if after.Bytes != before.Bytes || after.Answers-before.Answers < 15 || after.Answers-before.Answers > 25 {
			t.Errorf("20 s of nothing cost %+v after %+v", after, before)
		}
	})
}

func TestRowsAreAsOldAsTheirQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := follow(t, 0, "eu")
		eu := w.sources["eu"]
		eu.put("running", "a")
		const slow, contact = 700 * time.Millisecond, 3 * time.Second
		eu.do(func() { eu.slow, eu.contact = slow, contact })
		time.Sleep(slow)
		synctest.Wait()
		if age := w.copies.Of("eu").Age(time.Now()); age != slow+contact {
			t.Errorf("what was asked %s ago of a server without a leader for %s is %s old", slow, contact, age)
		}
		eu.do(func() { eu.slow, eu.contact = 0, 0 })
		settle()
		if age := w.copies.Of("eu").Age(time.Now()); age < 0 || age > idlePull {
			t.Errorf("kept up, it is %s old", age)
		}

		// Cut off, its rows stay, and grow old by our clock.
		eu.do(func() { eu.cut = errors.New("no route") })
		begun := time.Now()
		eu.put("dead", "a", "b")
		time.Sleep(time.Minute)
		c := w.copies.Of("eu")
		if age := c.Age(time.Now()); age < time.Minute || age > time.Minute+idlePull || c.Jobs.Len() != 1 || c.Index != 1 {
			t.Errorf("after a minute it is %s old, with %d rows at %d", age, c.Jobs.Len(), c.Index)
		}
		if asked := eu.count(); asked > 60 {
			t.Errorf("it was asked %d times in a minute", asked)
		}
		// Back, it tells what changed, no more.
		before := w.copies.Traffic("eu")
		eu.do(func() { eu.cut = nil })
		time.Sleep(again.Max)
		synctest.Wait()
		w.same("eu")
		if now := w.copies.Traffic("eu"); now.Full != before.Full || now.Rows-before.Rows != 2 {
			t.Errorf("%s later it cost %+v after %+v", time.Since(begun), now, before)
		}
	})
}

func TestWhatCannotBeToldAsChangesIsToldWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := follow(t, 0, "eu")
		eu := w.sources["eu"]
		eu.put("running", "a", "b", "c", "-b")
		settle()
		w.same("eu")

		// A server that was restarted remembers no changes.
		eu.put("running", "d", "-a")
		eu.do(func() { eu.forgotten, eu.changed = eu.index, map[uint64]string{} })
		settle()
		w.same("eu")
		if n := w.copies.Traffic("eu").Full; n != 2 {
			t.Errorf("%d whole answers, want 2", n)
		}
		// An older state was restored, with an index that is lower.
		eu.do(func() {
			eu.state, eu.index, eu.forgotten = "cell/2", 2, 2
			eu.jobs = map[string]*model.JobRow{"a": {Namespace: "default", ID: "a", ModifyIndex: 1}}
		})
		settle()
		w.same("eu")
		if c := w.copies.Of("eu"); w.copies.Traffic("eu").Full != 3 || c.Index != 2 || c.State != "cell/2" {
			t.Errorf("after a restore: index %d of %s, %+v", c.Index, c.State, w.copies.Traffic("eu"))
		}
		eu.put("running", "e")
		settle()
		w.same("eu")
	})
}

func TestAServerThatIsBehindTakesNothingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := follow(t, 0, "eu")
		eu := w.sources["eu"]
		eu.put("running", "a", "b", "c")
		settle()
		eu.do(func() { eu.index = 2; eu.contact = time.Second })
		settle()
		if c := w.copies.Of("eu"); c.Index != 3 || c.Jobs.Len() != 3 || c.Age(time.Now()) < time.Second {
			t.Errorf("index %d, %d rows, %s old", c.Index, c.Jobs.Len(), c.Age(time.Now()))
		}
	})
}

func TestARegionThatIsForgottenOrBecomesAnotherCellsLosesItsCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := follow(t, 0, "eu", "ap")
		w.sources["eu"].put("running", "a")
		settle()
		w.mu.Lock()
		delete(w.known, "ap")
		w.known["eu"] = model.RegionStatus{Name: "eu", CellID: "another"}
		w.mu.Unlock()
		w.sources["eu"].do(func() { w.sources["eu"].cut = errors.New("the cell is not known") })
		settle()
		if w.copies.Of("ap") != nil || w.copies.Of("eu") != nil {
			t.Errorf("copies of ap %v, of eu %v", w.copies.Of("ap"), w.copies.Of("eu"))
		}
		asked := w.sources["ap"].count()
		settle()
		if n := w.sources["ap"].count(); n != asked {
			t.Errorf("what was forgotten is asked still")
		}
	})
}

func TestARegionCannotMakeUsKeepWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 64 << 10
		w := follow(t, limit, "eu")
		eu := w.sources["eu"]
		var ids, gone []string
		for i := range 1000 {
			ids = append(ids, fmt.Sprintf("job-%04d", i))
			if i >= 100 {
				gone = append(gone, "-"+ids[i])
			}
		}
		eu.put("running", ids...)
		settle()
		c := w.copies.Of("eu")
		if c.Size > limit || c.Jobs.Len() < 100 || c.Jobs.Len()+c.Dropped != 1000 {
			t.Errorf("%d bytes of %d, %d rows, %d dropped", c.Size, limit, c.Jobs.Len(), c.Dropped)
		}
		// What is kept follows, if it does not grow.
		held, err := Take(c.Jobs.Select("eu", &Selection[*model.JobRow]{Namespace: "*"}), 2)
		if err != nil || len(held) != 2 {
			t.Fatal(held, err)
		}
		eu.put("dead", held[0].ID)
		eu.put("running for a very long time, "+strings.Repeat("x", 500), held[1].ID)
		settle()
		now := w.copies.Of("eu")
		row, there := now.Jobs.Get(held[0].Key())
		_, grown := now.Jobs.Get(held[1].Key())
		if !there || row.Status != "dead" || grown || now.Size > limit || now.Size < limit-1000 {
			t.Errorf("%+v is there: %v; one that has no room: %v; %d bytes", row, there, grown, now.Size)
		}
		// Once it has become small enough, all of it is had.
		eu.put("", gone...)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		w.same("eu")
		if c := w.copies.Of("eu"); c.Dropped != 0 {
			t.Errorf("%d dropped of what is %d bytes", c.Dropped, c.Size)
		}
	})
}

func TestWhoChangesAllTheTimeIsAskedLessOften(t *testing.T) {
	for changes, want := range map[int]time.Duration{0: time.Second, 1: 500500 * time.Microsecond, 1000: time.Second, 9000: 5 * time.Second, 1_000_000: 5 * time.Second} {
		if got := pause(changes); got != want {
			t.Errorf("after %d changes it waits %s, want %s", changes, got, want)
		}
	}
}

func TestNonsenseChangesNoCopy(t *testing.T) {
	pack := func(rows *method.SummaryRows) []byte {
		b, err := pack(rows)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	bomb := make([]*model.JobRow, 400)
	for i := range bomb {
		bomb[i] = &model.JobRow{ID: strings.Repeat("x", 100_000)}
	}
	for name, frames := range map[string][]*method.SummaryFrame{
		"no frame":                       {},
		"bytes that are none":            {{State: "cell/1", Rows: []byte("rows")}},
		"a row that is missing":          {{State: "cell/1", Rows: pack(&method.SummaryRows{Jobs: []*model.JobRow{nil}})}},
		"changes to what was never told": {{State: "cell/9", Index: 7, Rows: pack(&method.SummaryRows{Jobs: []*model.JobRow{{ID: "x"}}})}},
		"a bomb":                         {{State: "cell/1", Full: true, Rows: pack(&method.SummaryRows{Jobs: bomb})}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := follow(t, 0, "eu")
				eu := w.sources["eu"]
				eu.put("running", "a", "b")
				settle()
				before := w.copies.Of("eu")
				eu.do(func() { eu.answer = frames })
				settle()
				if w.copies.Of("eu") != before {
					t.Errorf("the copy is now %+v", w.copies.Of("eu"))
				}
				eu.do(func() { eu.answer = nil })
				time.Sleep(3 * again.Max)
				synctest.Wait()
				w.same("eu")
			})
		})
	}
}

func TestTheOwnCopyIsOfTheMomentItIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		s.put("running", "a")
		own := NewOwn("us", func(req *method.SummaryPullRequest) (d *Delta, err error) {
			err = s.pull(t.Context(), nil, req, func(f *method.SummaryFrame) error {
				d, _, err = receive(once(f), 1<<30)
				return err
			})
			return d, err
		}, clockNow{})
		for i := range 3 {
			s.put("running", fmt.Sprintf("job-%d", i))
			c, err := own.Now()
			if err != nil || c.Jobs.Len() != 2+i || c.Index != uint64(2+i) || c.Age(time.Now()) != 0 {
				t.Errorf("after write %d: %d rows at %d, %v", i, c.Jobs.Len(), c.Index, err)
			}
		}
		if full := slices.DeleteFunc(s.asked, func(q method.SummaryPullRequest) bool { return q.State != "" }); len(full) != 1 {
			t.Errorf("it was read whole %d times", len(full))
		}
		s.cut = errors.New("no leader yet")
		if _, err := own.Now(); err == nil {
			t.Error("it is told of though it could not be read")
		}
	})
}

type clockNow struct{}

func (clockNow) Now() time.Time { return time.Now() }

// once is a stream of one frame.
func once(f *method.SummaryFrame) func() (*method.SummaryFrame, error) {
	return func() (*method.SummaryFrame, error) {
		out := f
		f = nil
		if out == nil {
			return nil, io.EOF
		}
		return out, nil
	}
}

// What a region says of itself is no reason to hold its rows newer than they are, nor
// to keep whatever it sends.
func TestWhatARegionSaysOfItselfHasBounds(t *testing.T) {
	report := &model.RegionReport{CellID: "cell", RTT: map[string]time.Duration{}}
	for i := range 10_000 {
		report.RTT[fmt.Sprint("region-", i)] = time.Millisecond
	}
	for _, contact := range []time.Duration{-time.Hour, 1<<63 - 1} {
		synctest.Test(t, func(t *testing.T) {
			w := follow(t, 0, "eu")
			eu := w.sources["eu"]
			eu.put("running", "a")
			eu.do(func() { eu.contact = contact })
			settle()
			if age := w.copies.Of("eu").Age(time.Now()); age < 0 {
				t.Errorf("with a contact of %s its rows are %s old", contact, age)
			}
			before := w.copies.Of("eu").Report
			eu.do(func() { eu.answer = []*method.SummaryFrame{{State: "another", Full: true, Report: report}} })
			settle()
			if c := w.copies.Of("eu"); c.State != "another" || c.Report != before {
				t.Errorf("of %s it keeps a report of %d round trips", c.State, len(c.Report.RTT))
			}
		})
	}
}
