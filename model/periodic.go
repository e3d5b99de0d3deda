package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
	// A machine may have no time zones of its own, and every server must know
	// those that jobs name.
	_ "time/tzdata"

	"github.com/hashicorp/cronexpr"
)

// PeriodicConfig makes a job one that never runs itself: at the times that it
// says, a child of the job is launched.
type PeriodicConfig struct {
	// Enabled is true when not given; without it nothing is launched, by force
	// neither.
	Enabled bool
	// Spec is a cron expression, and Specs are several, any of which may be
	// met; one of the two is given.
	Spec  string
	Specs []string
	// SpecType is PeriodicSpecCron.
	SpecType string
	// ProhibitOverlap skips a launch while an earlier child is not dead.
	ProhibitOverlap bool
	// TimeZone is the name of the zone whose clock the expressions are about;
	// UTC when not given.
	TimeZone string
}

// PeriodicSpecCron is the one type of specification there is.
const PeriodicSpecCron = "cron"

// PeriodicLaunchSuffix and the launch's time in Unix seconds follow the parent's
// id in that of a child.
const PeriodicLaunchSuffix = "/periodic-"

// Bounds of a schedule.
const (
	maxCrons   = 100
	maxCronLen = 256
)

// NewPeriodicConfig has Nomad's defaults.
func NewPeriodicConfig() *PeriodicConfig { return &PeriodicConfig{Enabled: true} }

// UnmarshalJSON decodes over NewPeriodicConfig.
func (p *PeriodicConfig) UnmarshalJSON(b []byte) error {
	type plain PeriodicConfig
	v := plain(*NewPeriodicConfig())
	err := json.Unmarshal(b, &v)
	*p = PeriodicConfig(v)
	return err
}

func (p *PeriodicConfig) canonicalize() {
	if p.SpecType == "" {
		p.SpecType = PeriodicSpecCron
	}
	if p.TimeZone == "" {
		p.TimeZone = "UTC"
	}
}

// crons are the expressions, of which only one of the two fields is given.
func (p *PeriodicConfig) crons() []string {
	if p.Spec != "" {
		return []string{p.Spec}
	}
	return p.Specs
}

// IsPeriodic reports whether the job launches children at times.
func (j *Job) IsPeriodic() bool { return j.Periodic != nil }

// IsPeriodicActive reports whether children are to be launched at the job's
// times. One that is parameterized too has its times for its children: each of
// these is periodic.
func (j *Job) IsPeriodicActive() bool {
	return j.IsPeriodic() && j.Periodic.Enabled && !j.Stop && !j.IsParameterized()
}

// IsParent reports whether the job runs as its children only, and is itself never
// placed.
func (j *Job) IsParent() bool { return j.IsPeriodic() || j.IsParameterized() }

// PeriodicChildID is the id of the child of a launch.
func PeriodicChildID(parent string, launch time.Time) string {
	return fmt.Sprintf("%s%s%d", parent, PeriodicLaunchSuffix, launch.Unix())
}

// LaunchedAt is the child of a periodic job for a launch; now is in Unix
// nanoseconds.
func (j *Job) LaunchedAt(launch time.Time, now int64) *Job {
	child := j.child(PeriodicChildID(j.ID, launch), now)
	child.Periodic = nil
	return child
}

// child is a new job that is as j says.
func (j *Job) child(id string, now int64) *Job {
	c := *j
	c.ID, c.Name, c.ParentID, c.SubmitTime = id, id, j.ID, now
	c.Stable, c.VersionTag, c.StatusDescription = false, nil, ""
	c.Multiregion = nil // each region has children of its own
	return &c
}

// Transition says why a stored job cannot become next, nil when it can: what runs
// as children and what runs itself have nothing in common that could go on.
func (j *Job) Transition(next *Job) error {
	for _, t := range []struct {
		what     string
		was, now bool
	}{
		{"periodic", j.IsPeriodic(), next.IsPeriodic()},
		{"parameterized", j.ParameterizedJob != nil, next.ParameterizedJob != nil},
	} {
		if t.was == t.now {
			continue
		}
		verb := "become"
		if t.was {
			verb = "cease to be"
		}
		return Invalidf("job."+t.what, "cannot register job %q: a job that exists cannot %s %s; stop it with -purge first, or register it under another id", j.ID, verb, t.what)
	}
	return nil
}

func (j *Job) checkPeriodic(f *faults) (warnings []string) {
	p := j.Periodic
	if p == nil {
		return nil
	}
	j.checkParent(f, "periodic")
	if p.SpecType != PeriodicSpecCron {
		f.add("job.periodic.spec_type", "%q is not %q, the only type there is", p.SpecType, PeriodicSpecCron)
	}
	field := "job.periodic.crons"
	switch {
	case p.Spec != "" && len(p.Specs) > 0:
		f.add("job.periodic.cron", "both cron and crons are given; write all expressions into crons")
	case p.Spec != "":
		field = "job.periodic.cron"
	case len(p.Specs) == 0:
		f.add(field, "there is none; write one such as \"0 2 * * *\" or \"@daily\"")
	case len(p.Specs) > maxCrons:
		f.add(field, "%d expressions are over the limit of %d", len(p.Specs), maxCrons)
		return nil
	}
	for _, spec := range p.crons() {
		if _, err := parseCron(spec); err != nil {
			f.add(field, "%.*q is no cron expression: %v; write minute, hour, day of the month, month and day of the week, such as \"0 2 * * *\", or a name such as @daily", maxCronLen, spec, err)
		}
	}
	if _, err := time.LoadLocation(p.TimeZone); err != nil {
		f.add("job.periodic.time_zone", "%.*q is no time zone; write a name of the IANA's, such as \"Europe/Berlin\" or \"UTC\"", maxCronLen, p.TimeZone)
	}
	if p.TimeZone == "Local" {
		warnings = append(warnings, "job.periodic.time_zone: \"Local\" is the zone of whichever server leads the region; name one")
	}
	return warnings
}

// maxSuffix is more than what a launch adds to its parent's id.
const maxSuffix = 32

// checkParent refuses parents whose children would not end, or have no room for
// ids of their own.
func (j *Job) checkParent(f *faults, what string) {
	if j.Type != JobTypeBatch && j.Type != JobTypeSysBatch {
		f.add("job."+what, "a job of type %q cannot be %s; make it batch or sysbatch", j.Type, what)
	}
	if len(j.ID) > maxIDLen-maxSuffix {
		f.add("job.id", "its %d bytes leave no room for the ids of children; the limit is %d", len(j.ID), maxIDLen-maxSuffix)
	}
}

// parseCron reads an expression that is met at some time. The library panics at
// some malformed ones.
func parseCron(spec string) (e *cronexpr.Expression, err error) {
	defer func() {
		if recover() != nil {
			e, err = nil, errors.New("it cannot be read")
		}
	}()
	if len(spec) > maxCronLen {
		return nil, fmt.Errorf("%d bytes are over the limit of %d", len(spec), maxCronLen)
	}
	if e, err = cronexpr.Parse(spec); err != nil {
		return nil, err
	}
	if e.Next(time.Unix(1, 0).UTC()).IsZero() {
		return nil, errors.New("no day is ever like this")
	}
	return e, nil
}

// Schedule is when a periodic job is launched. It is for one goroutine at a time.
type Schedule struct {
	crons []*cronexpr.Expression
	zone  *time.Location
}

// Schedule reads the expressions of a valid configuration.
func (p *PeriodicConfig) Schedule() (*Schedule, error) {
	zone, err := time.LoadLocation(p.TimeZone)
	if err != nil {
		return nil, fmt.Errorf("cannot read the time zone %q: %w", p.TimeZone, err)
	}
	s := &Schedule{zone: zone}
	for _, spec := range p.crons() {
		e, err := parseCron(spec)
		if err != nil {
			return nil, fmt.Errorf("cannot read the cron expression %q: %w", spec, err)
		}
		s.crons = append(s.crons, e)
	}
	return s, nil
}

// Next returns the first launch after a time, the zero time when there is none.
//
// What an expression names is what the zone's clock shows. So an hour that the
// clock leaves out launches nothing that day, and one that it shows twice
// launches twice, as Nomad documents it.
func (s *Schedule) Next(after time.Time) (next time.Time) {
	for _, e := range s.crons {
		if t := nextOf(e, after.In(s.zone)); !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	return next
}

// nextOf looks at one stretch of the zone after the other, from one change of its
// clock to the next. Within one, time goes on as in UTC; the library's own way
// through such days loses launches where a clock changes by half an hour.
func nextOf(e *cronexpr.Expression, after time.Time) time.Time {
	for stretch := after; ; {
		_, offset := stretch.Zone()
		ahead := time.Duration(offset) * time.Second
		shown := e.Next(after.UTC().Add(ahead))
		if shown.IsZero() {
			return shown
		}
		t := shown.Add(-ahead).In(after.Location())
		_, end := stretch.ZoneBounds()
		// Beyond its table of a zone, Go has every year end after 365 days, so that
		// the last day of a leap year seems to have ended before it begins.
		if !end.IsZero() && !end.After(stretch) {
			end = stretch.Add(time.Hour)
		}
		if end.IsZero() || t.Before(end) {
			return t
		}
		// The next one begins with its first moment.
		stretch, after = end, end.Add(-1)
	}
}
