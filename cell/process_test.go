package cell

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"atoll/internal/freeport"
)

// memberEnv makes the test binary a member of a cell, in a process that can be
// killed. Its value is a memberSpec in JSON.
const memberEnv = "ATOLL_TEST_MEMBER"

type memberSpec struct {
	Name, Dir, Addr string
	// Begins are the servers of a cell that has not begun, none for one that has.
	Begins []Server
	// Eager members take snapshots all the time and keep a short log.
	Eager bool
	// GoesOn is a file that is there once the cell goes on without this member.
	GoesOn string
}

// memberMain runs a member that takes commands from its input, a line each:
//
//	write PREFIX      register jobs for ever, while this member leads
//	list              answered with "list", the member's id, and the jobs it has
//	admit ID ADDRESS  make a member of who has come back at the address
//
// It tells by itself which jobs were acked, and what it has promised as Raft's
// term and vote once those are written.
func memberMain(value string) error {
	var spec memberSpec
	if err := json.Unmarshal([]byte(value), &spec); err != nil {
		return err
	}
	l, err := net.Listen("tcp", spec.Addr)
	if err != nil {
		return err
	}
	var mu sync.Mutex // one line at a time
	say := func(words ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println(words...)
	}
	var c *Cell
	eager := func() {
		if m := c.current(); spec.Eager && m != nil {
			err := m.raft.ReloadConfig(raft.ReloadableConfig{
				TrailingLogs: 20, SnapshotThreshold: 50, SnapshotInterval: time.Second,
				HeartbeatTimeout: electionTimeout, ElectionTimeout: electionTimeout,
			})
			if err != nil {
				panic(err)
			}
		}
	}
	cfg := Config{
		DataDir: spec.Dir, Stream: tcpStream{l}, Advertise: spec.Addr, SnapshotThreshold: 50, Version: "v-test",
		Logger: hclog.New(&hclog.LoggerOptions{Name: spec.Name, Level: hclog.Info}),
		OpenLog: func(path string) (LogStore, error) {
			s, err := openBolt(path)
			if err != nil {
				return nil, err
			}
			return newTelling(s, filepath.Dir(path), say)
		},
		GoesOn: func(context.Context) bool {
			_, err := os.Stat(spec.GoesOn)
			return err == nil
		},
		Renewed: func(string) { eager() },
	}
	if len(spec.Begins) > 0 {
		cfg.ServerID = spec.Name
	}
	if spec.Eager {
		cfg.replay = time.Nanosecond
	}
	if c, err = Open(cfg); err != nil {
		return err
	}
	eager()
	go func() { // until the process is killed
		fmt.Fprintln(os.Stderr, "the member has ended:", c.Run(context.Background()))
		os.Exit(1)
	}()
	fresh, err := c.Fresh()
	if err != nil {
		return err
	}
	if fresh && len(spec.Begins) > 0 {
		if err := c.Bootstrap(spec.Begins); err != nil {
			return err
		}
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		switch words := strings.Fields(in.Text()); words[0] {
		case "write":
			for w := range 4 {
				go writeForEver(c, fmt.Sprintf("%s-%s-%d", words[1], spec.Name, w), say)
			}
		case "list":
			out := []any{"list", cmp.Or(c.ID(), "-")}
			for j := range c.Snapshot().Jobs(nil, "*", "") {
				out = append(out, j.ID)
			}
			say(out...)
		case "admit":
			if err := admit(c, words[1], words[2]); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
	}
	return in.Err()
}

func writeForEver(c *Cell, prefix string, say func(...any)) {
	for i := 0; ; {
		if turn := c.Turn(); !c.IsLeader() {
			<-turn
			continue
		}
		id := fmt.Sprintf("%s-%d", prefix, i)
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		_, _, err := c.ApplyOnce(ctx, CmdJobRegister, request(id, 1), &JobRegister{Job: testJob(id, 1)})
		cancel()
		if i++; err == nil {
			say("acked", id)
		}
	}
}

// admit makes a member of the server at an address under its new id. Only the
// leader can.
func admit(c *Cell, id, addr string) error {
	m, err := c.up()
	if err != nil || !c.IsLeader() {
		return err
	}
	conf, err := c.Configuration()
	if err != nil {
		return err
	}
	for _, s := range conf.Servers {
		if s.Address == addr && s.ID == id {
			return nil
		}
		if s.Address == addr {
			if err := c.RemoveServer(s.ID); err != nil {
				return err
			}
		}
	}
	return m.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(addr), 0, 0).Error()
}

// telling is a log store that tells of Raft's term and vote: of those that it
// has when it is opened, and of each once it is written.
type telling struct {
	LogStore
	id   string
	say  func(...any)
	vote uint64 // the term of the vote
}

func newTelling(s LogStore, dir string, say func(...any)) (LogStore, error) {
	id, err := os.ReadFile(filepath.Join(dir, fileID))
	if err != nil { // the power has just gone
		return nil, errors.Join(err, s.Close())
	}
	t := &telling{LogStore: s, id: strings.TrimSpace(string(id)), say: say}
	get := func(key string) []byte {
		v, err := s.Get([]byte(key))
		if err != nil {
			return nil // there is none
		}
		return v[:len(v)-4]
	}
	number := func(b []byte) (n uint64) {
		if len(b) == 8 {
			n = binary.BigEndian.Uint64(b)
		}
		return n
	}
	t.vote = number(get(keyVoteTerm))
	say("found", t.id, number(get(keyTerm)), t.vote, fmt.Sprintf("%x-", get(keyVoteCand)))
	return t, nil
}

func (t *telling) Set(key, value []byte) error {
	err := t.LogStore.Set(key, value)
	if err != nil {
		return err
	}
	value = value[:len(value)-4]
	switch string(key) {
	case keyTerm:
		t.say("term", t.id, binary.BigEndian.Uint64(value))
	case keyVoteTerm:
		t.vote = binary.BigEndian.Uint64(value)
	case keyVoteCand: // Raft writes it after its term
		t.say("vote", t.id, t.vote, fmt.Sprintf("%x-", value))
	}
	return nil
}

// processes are a cell of three members, each in a process of its own, and what
// they have promised.
type processes struct {
	t      *testing.T
	spec   map[string]*memberSpec
	member map[string]*process
	// given is who was given damaged data, and is expected to say so.
	given string

	mu    sync.Mutex // guards what follows
	acked map[string]bool
	ids   map[string]string // by name
	terms map[string]uint64 // by id, as all below
	votes map[string]uint64
	cands map[string]string
	wrong []string
}

// newProcesses makes a cell of directories in one.
func newProcesses(t *testing.T, dir string) *processes {
	p := &processes{
		t: t, spec: map[string]*memberSpec{}, member: map[string]*process{}, acked: map[string]bool{},
		ids: map[string]string{}, terms: map[string]uint64{}, votes: map[string]uint64{}, cands: map[string]string{},
	}
	var servers []Server
	for _, n := range ringNames {
		p.spec[n] = &memberSpec{Name: n, Dir: filepath.Join(dir, n), Addr: freeport.Addr(t)}
		servers = append(servers, Server{n, p.spec[n].Addr})
	}
	for _, n := range ringNames {
		p.spec[n].Begins = servers
	}
	t.Cleanup(p.kill)
	return p
}

// process is a member in a process of its own.
type process struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	log   *safeBuffer
	lists chan []string
	ended chan struct{} // closed when all that it said was heard
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (p *processes) start(names ...string) {
	p.t.Helper()
	for _, n := range names {
		spec, err := json.Marshal(p.spec[n])
		if err != nil {
			p.t.Fatal(err)
		}
		m := &process{cmd: exec.Command(os.Args[0]), log: &safeBuffer{}, lists: make(chan []string, 1), ended: make(chan struct{})}
		m.cmd.Env, m.cmd.Stderr = append(os.Environ(), memberEnv+"="+string(spec)), m.log
		if m.in, err = m.cmd.StdinPipe(); err != nil {
			p.t.Fatal(err)
		}
		out, err := m.cmd.StdoutPipe()
		if err != nil {
			p.t.Fatal(err)
		}
		if err := m.cmd.Start(); err != nil {
			p.t.Fatal(err)
		}
		p.member[n] = m
		go func() { // ended by the end of the process
			defer close(m.ended)
			lines := bufio.NewScanner(out)
			lines.Buffer(nil, 4<<20)
			for lines.Scan() {
				p.hear(n, m, strings.Fields(lines.Text()))
			}
		}()
	}
}

// hear takes down what a member says.
func (p *processes) hear(name string, m *process, words []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var id, cand string
	var term, vote uint64
	switch line := strings.Join(words, " "); words[0] {
	case "acked":
		p.acked[words[1]] = true
	case "list":
		m.lists <- words[1:]
	case "term":
		_, _ = fmt.Sscan(line, new(string), &id, &term)
		p.terms[id] = max(p.terms[id], term)
	case "vote":
		_, _ = fmt.Sscan(line, new(string), &id, &vote, &cand)
		p.votes[id], p.cands[id] = vote, cand
	case "found":
		_, _ = fmt.Sscan(line, new(string), &id, &term, &vote, &cand)
		if was := p.ids[name]; was != "" && was != id && name != p.given {
			p.wrong = append(p.wrong, fmt.Sprintf("%s was %s and is %s", name, was, id))
		}
		p.ids[name] = id
		// Nobody votes or leads in term 1, with which a cell begins.
		if term < p.terms[id] && p.terms[id] > 1 {
			p.wrong = append(p.wrong, fmt.Sprintf("%s has gone back from term %d to %d", id, p.terms[id], term))
		}
		if vote < p.votes[id] || vote == p.votes[id] && vote > 0 && cand != p.cands[id] {
			p.wrong = append(p.wrong, fmt.Sprintf("%s has voted in term %d for %s, and says %d, %s", id, p.votes[id], p.cands[id], vote, cand))
		}
	default:
		p.wrong = append(p.wrong, name+": "+line)
	}
}

// kill ends all members at one time, and waits until all that they said was
// heard.
func (p *processes) kill() {
	for _, m := range p.member {
		_ = m.cmd.Process.Kill()
	}
	for n := range p.member {
		p.killOne(n)
	}
}

func (p *processes) killOne(name string) {
	m := p.member[name]
	_ = m.cmd.Process.Kill()
	<-m.ended
	_ = m.cmd.Wait()
	delete(p.member, name)
}

// ask returns the answer to "list".
func (p *process) ask() []string {
	if _, err := fmt.Fprintln(p.in, "list"); err != nil {
		return nil
	}
	select {
	case l := <-p.lists:
		return l
	case <-p.ended:
		return nil
	}
}

func (p *processes) tell(words ...any) {
	for _, m := range p.member {
		_, _ = fmt.Fprintln(m.in, words...)
	}
}

func (p *processes) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.acked)
}

func (p *processes) faulty(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wrong = append(p.wrong, fmt.Sprintf(format, args...))
}

// wait waits for f to return "", or for something to be wrong.
func (p *processes) wait(what string, f func() string) {
	last := ""
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if last = f(); last == "" || p.faults() != nil {
			return
		}
	}
	p.faulty("not within 30 s: %s: %s", what, last)
}

// faults are what is wrong so far.
func (p *processes) faults() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wrong
}

// settle waits until each member that runs has every write that was acked, and
// looks through what it has logged till then.
func (p *processes) settle() {
	for name, m := range p.member {
		p.wait(name+" has every acked write", func() string {
			list := m.ask()
			if list == nil {
				p.faulty("%s has ended: %s", name, m.log)
				return "it has ended"
			}
			for line := range strings.Lines(m.log.String()) {
				if name != p.given && strings.Contains(line, "damaged") || strings.Contains(line, "panic") {
					p.faulty("%s says: %s", name, strings.TrimSpace(line))
					return line
				}
			}
			if name == p.given {
				p.tell("admit", list[0], p.spec[name].Addr)
			}
			have := map[string]bool{}
			for _, id := range list[1:] {
				have[id] = true
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			lost := 0
			for id := range p.acked {
				if !have[id] {
					lost++
				}
			}
			if lost > 0 {
				return fmt.Sprintf("%d of %d are not there", lost, len(p.acked))
			}
			return ""
		})
	}
}

// write waits until n more writes were acked; they go on after that.
func (p *processes) write(prefix string, n int) {
	want := p.count() + n
	p.tell("write", prefix)
	p.wait(fmt.Sprintf("%d writes", n), func() string {
		if got := p.count(); got < want {
			return fmt.Sprintf("%d are missing", want-got)
		}
		return ""
	})
}

// begun is called when the cell has members: nobody begins it again.
func (p *processes) begun() {
	for _, s := range p.spec {
		s.Begins = nil
	}
}
