package model

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func schedule(t testing.TB, zone string, crons ...string) *Schedule {
	t.Helper()
	s, err := (&PeriodicConfig{Specs: crons, TimeZone: zone}).Schedule()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Nomad documents for the days on which a zone's clock changes: what is scheduled
// for an hour that is left out is skipped, what is for one that comes twice runs
// twice.
func TestLaunchesOnTheDaysOfSummerTime(t *testing.T) {
	for _, c := range []struct{ zone, cron, from, want string }{
		// 29 March 2026: after 01:59 CET comes 03:00 CEST.
		{"Europe/Berlin", "0 2 * * *", "2026-03-27T12:00Z", "03-28T01:00Z 03-30T00:00Z 03-31T00:00Z"},
		{"Europe/Berlin", "30 2 * * *", "2026-03-27T12:00Z", "03-28T01:30Z 03-30T00:30Z 03-31T00:30Z"},
		{"Europe/Berlin", "0 3 * * *", "2026-03-27T12:00Z", "03-28T02:00Z 03-29T01:00Z 03-30T01:00Z"},
		{"Europe/Berlin", "59 1 * * *", "2026-03-27T12:00Z", "03-28T00:59Z 03-29T00:59Z 03-29T23:59Z"},
		{"Europe/Berlin", "0 * * * *", "2026-03-28T23:30Z", "03-29T00:00Z 03-29T01:00Z 03-29T02:00Z"},
		// 25 October 2026: after 02:59 CEST comes 02:00 CET.
		{"Europe/Berlin", "0 2 * * *", "2026-10-24T12:00Z", "10-25T00:00Z 10-25T01:00Z 10-26T01:00Z"},
		{"Europe/Berlin", "30 2 * * *", "2026-10-24T12:00Z", "10-25T00:30Z 10-25T01:30Z 10-26T01:30Z"},
		{"Europe/Berlin", "0 3 * * *", "2026-10-24T12:00Z", "10-25T02:00Z 10-26T02:00Z 10-27T02:00Z"},
		{"Europe/Berlin", "0 * * * *", "2026-10-24T23:30Z", "10-25T00:00Z 10-25T01:00Z 10-25T02:00Z"},
		// Half an hour is left out: 02:00 is, and 02:45 is not.
		{"Australia/Lord_Howe", "0 2 * * *", "2026-10-02T00:00Z", "10-02T15:30Z 10-04T15:00Z 10-05T15:00Z"},
		{"Australia/Lord_Howe", "45 2 * * *", "2026-10-02T00:00Z", "10-02T16:15Z 10-03T15:45Z 10-04T15:45Z"},
		// Midnight itself is left out.
		{"Africa/Cairo", "@daily", "2026-04-22T12:00Z", "04-22T22:00Z 04-24T21:00Z 04-25T21:00Z"},
		// A leap year beyond the zone's table.
		{"Europe/Berlin", "0 0 31 12 *", "2040-12-29T00:00Z", "12-30T23:00Z 12-30T23:00Z 12-30T23:00Z"},
		{"Europe/Berlin", "30 1 * * *", "2040-12-29T12:00Z", "12-30T00:30Z 12-31T00:30Z 01-01T00:30Z"},
		{"UTC", "0 2 * * *", "2026-03-28T12:00Z", "03-29T02:00Z 03-30T02:00Z 03-31T02:00Z"},
	} {
		s := schedule(t, c.zone, c.cron)
		at, err := time.Parse("2006-01-02T15:04Z", c.from)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for range 3 {
			at = s.Next(at)
			got = append(got, at.UTC().Format("01-02T15:04Z"))
		}
		if g := strings.Join(got, " "); g != c.want {
			t.Errorf("%s in %s after %s: %s, want %s", c.cron, c.zone, c.from, g, c.want)
		}
	}
}

// Whatever the zone, the launches are the minutes that its clock shows as the
// expression names them, each of them.
func TestLaunchesAreTheMinutesThatTheClockShows(t *testing.T) {
	zones := []string{
		"UTC", "Europe/Berlin", "America/New_York", "America/St_Johns", "Australia/Lord_Howe", "Africa/Cairo", "America/Sao_Paulo",
		"Asia/Kathmandu", "Pacific/Apia", "Africa/Casablanca", "Antarctica/Troll",
	}
	some := func(t *rapid.T, name string, from, to int) []int {
		all := rapid.SliceOfNDistinct(rapid.IntRange(from, to), 1, 4, rapid.ID[int]).Draw(t, name)
		slices.Sort(all)
		return all
	}
	text := func(all []int) string { return strings.Trim(strings.ReplaceAll(fmt.Sprint(all), " ", ","), "[]") }
	rapid.Check(t, func(t *rapid.T) {
		zone := rapid.SampledFrom(zones).Draw(t, "zone")
		minutes, hours := some(t, "minutes", 0, 59), some(t, "hours", 0, 4)
		cron := fmt.Sprintf("%s %s * * *", text(minutes), text(hours))
		s, err := (&PeriodicConfig{Spec: cron, TimeZone: zone}).Schedule()
		if err != nil {
			t.Fatal(err)
		}
		// Around some change of the clock, where there are any.
		at := time.Unix(rapid.Int64Range(time.Date(2009, 1, 1, 0, 0, 0, 0, time.UTC).Unix(), time.Date(2060, 1, 1, 0, 0, 0, 0, time.UTC).Unix()).Draw(t, "at"), 0).In(s.zone)
		if _, change := at.ZoneBounds(); !change.IsZero() {
			at = change
		}
		at = at.Add(-24 * time.Hour).Truncate(time.Minute)
		next := s.Next(at.Add(-time.Second))
		for end := at.Add(60 * time.Hour); at.Before(end); at = at.Add(time.Minute) {
			named := slices.Contains(minutes, at.Minute()) && slices.Contains(hours, at.Hour())
			if named != at.Equal(next) {
				t.Fatalf("%q in %s: %s is named: %v; the next launch is %s", cron, zone, at, named, next)
			}
			if named {
				next = s.Next(at)
			}
		}
	})
}

func TestSeveralExpressionsAndSeconds(t *testing.T) {
	s := schedule(t, "UTC", "*/20 * * * * * *", "@hourly", "15 10 * * *")
	at := time.Date(2026, 1, 1, 10, 14, 30, 1, time.UTC)
	var got []string
	for range 4 {
		at = s.Next(at)
		got = append(got, at.Format("15:04:05"))
	}
	if g := fmt.Sprint(got); g != "[10:14:40 10:15:00 10:15:20 10:15:40]" {
		t.Errorf("launches %s", g)
	}
	if next := schedule(t, "UTC", "0 0 1 1 * 2027").Next(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)); !next.IsZero() {
		t.Errorf("after the last one comes %s", next)
	}
}

// parent is a valid job that runs as its children.
func parent() *Job {
	return &Job{ID: "p", Type: JobTypeBatch, TaskGroups: []*TaskGroup{{Name: "g", Count: 1, Tasks: []*Task{{Name: "t", Driver: "mock"}}}}}
}

func TestParentsAreValidated(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Job)
		want   string // "" is valid
	}{
		"cron": {func(j *Job) { j.Periodic = &PeriodicConfig{Enabled: true, Spec: "@daily"} }, ""},
		"crons": {func(j *Job) {
			j.Periodic = &PeriodicConfig{Specs: []string{"0 2 * * *", "*/5 * * * * * *"}, TimeZone: "Europe/Berlin"}
		}, ""},
		"sysbatch": {func(j *Job) { j.Type, j.Periodic = JobTypeSysBatch, &PeriodicConfig{Spec: "@daily"} }, ""},
		"both sorts": {func(j *Job) {
			j.Periodic, j.ParameterizedJob = &PeriodicConfig{Spec: "@daily"}, &ParameterizedJobConfig{}
		}, ""},
		"a service":     {func(j *Job) { j.Type, j.Periodic = JobTypeService, &PeriodicConfig{Spec: "@daily"} }, `job.periodic: a job of type "service" cannot be periodic; make it batch or sysbatch`},
		"no expression": {func(j *Job) { j.Periodic = &PeriodicConfig{} }, `job.periodic.crons: there is none`},
		"two fields":    {func(j *Job) { j.Periodic = &PeriodicConfig{Spec: "@daily", Specs: []string{"@daily"}} }, `job.periodic.cron: both cron and crons are given`},
		"not enough":    {func(j *Job) { j.Periodic = &PeriodicConfig{Spec: "0 2 *"} }, `job.periodic.cron: "0 2 *" is no cron expression: missing field(s); write minute`},
		"minute 99":     {func(j *Job) { j.Periodic = &PeriodicConfig{Specs: []string{"@daily", "99 2 * * *"}} }, `job.periodic.crons: "99 2 * * *" is no cron expression`},
		"30 February":   {func(j *Job) { j.Periodic = &PeriodicConfig{Spec: "0 0 30 2 *"} }, `no day is ever like this`},
		"a zone":        {func(j *Job) { j.Periodic = &PeriodicConfig{Spec: "@daily", TimeZone: "Mars/Phobos"} }, `job.periodic.time_zone: "Mars/Phobos" is no time zone; write a name of the IANA's`},
		"a zone's path": {func(j *Job) { j.Periodic = &PeriodicConfig{Spec: "@daily", TimeZone: "../etc/passwd"} }, `is no time zone`},
		"Nomad's tests": {func(j *Job) { j.Periodic = &PeriodicConfig{Spec: "1", SpecType: "_internal_test"} }, `job.periodic.spec_type: "_internal_test" is not "cron"`},
		"a long id":     {func(j *Job) { j.ID, j.Periodic = strings.Repeat("x", 230), &PeriodicConfig{Spec: "@daily"} }, `job.id: its 230 bytes leave no room`},
		"too many":      {func(j *Job) { j.Periodic = &PeriodicConfig{Specs: make([]string, 101)} }, `job.periodic.crons: 101 expressions are over the limit of 100`},
		"parameterized": {func(j *Job) {
			j.ParameterizedJob = &ParameterizedJobConfig{MetaRequired: []string{"a"}, MetaOptional: []string{"b"}}
		}, ""},
		"no such demand": {func(j *Job) { j.ParameterizedJob = &ParameterizedJobConfig{Payload: "maybe"} }, `job.parameterized.payload: "maybe" is none of optional, required, forbidden`},
		"a key twice": {func(j *Job) {
			j.ParameterizedJob = &ParameterizedJobConfig{MetaRequired: []string{"a"}, MetaOptional: []string{"a"}}
		}, `job.parameterized.meta_optional: "a" is in meta_required too`},
		"a system job": {func(j *Job) { j.Type, j.ParameterizedJob = JobTypeSystem, &ParameterizedJobConfig{} }, `job.parameterized: a job of type "system" cannot be parameterized`},
		"a payload": {func(j *Job) {
			j.TaskGroups[0].Tasks[0].DispatchPayload = &DispatchPayloadConfig{File: "in/config.json"}
		}, ""},
		"no file": {func(j *Job) { j.TaskGroups[0].Tasks[0].DispatchPayload = &DispatchPayloadConfig{} }, `dispatch_payload.file: it is empty`},
		"outside": {func(j *Job) {
			j.TaskGroups[0].Tasks[0].DispatchPayload = &DispatchPayloadConfig{File: "a/../../secrets/x"}
		}, `dispatch_payload.file: "a/../../secrets/x" is not within the task's local directory`},
		"absolute": {func(j *Job) { j.TaskGroups[0].Tasks[0].DispatchPayload = &DispatchPayloadConfig{File: "/etc/passwd"} }, `is not within`},
	} {
		j := parent()
		c.change(j)
		j.Canonicalize()
		_, err := j.Validate()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || KindOf(err) != KindInvalid || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	j := parent()
	j.Periodic = &PeriodicConfig{Spec: "@daily", TimeZone: "Local"}
	j.Canonicalize()
	if warnings, err := j.Validate(); err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "Local") {
		t.Errorf("the zone Local: %v, %v", warnings, err)
	}
}

func TestWhatIsNotSaidOfAPeriodicJob(t *testing.T) {
	var j Job
	if err := json.Unmarshal([]byte(`{"ID":"p","Type":"batch","Periodic":{"Spec":"@daily"},"ParameterizedJob":{}}`), &j); err != nil {
		t.Fatal(err)
	}
	j.Canonicalize()
	if p := j.Periodic; !p.Enabled || p.SpecType != PeriodicSpecCron || p.TimeZone != "UTC" || p.ProhibitOverlap {
		t.Errorf("%+v", p)
	}
	if j.ParameterizedJob.Payload != DispatchPayloadOptional {
		t.Errorf("%+v", j.ParameterizedJob)
	}
	if !j.IsParent() || !j.Stopped() || j.IsPeriodicActive() {
		t.Error("one that is both is dispatched first")
	}
}

func TestAJobStaysOfItsSort(t *testing.T) {
	plain, times, takes := parent(), parent(), parent()
	times.Periodic, takes.ParameterizedJob = &PeriodicConfig{}, &ParameterizedJobConfig{}
	for _, c := range []struct {
		from, to *Job
		want     string
	}{
		{plain, plain, ""}, {times, times, ""}, {takes, takes, ""},
		{plain, times, "cannot become periodic"}, {times, plain, "cannot cease to be periodic"},
		{plain, takes, "cannot become parameterized"}, {takes, plain, "cannot cease to be parameterized"},
	} {
		err := c.from.Transition(c.to)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

func FuzzCron(f *testing.F) {
	for _, s := range []string{"@daily", "*/15 * * * * * *", "0 0 L * *", "0 0 * * 5#3", "0 0 15W * *", "1-5/2,7 * * JAN MON-FRI 2026-2030", "*/0 * * * *", "5-1 * * * *", "0 0 LW * *", "0 0 31 2 6#5"} {
		f.Add(s)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		e, err := parseCron(spec)
		if err != nil {
			return
		}
		after := time.Date(2026, 3, 28, 22, 0, 0, 5, time.UTC).In(berlin)
		for range 5 {
			next := nextOf(e, after)
			if next.IsZero() {
				return
			}
			if !next.After(after) || next.Nanosecond() != 0 {
				t.Fatalf("%q: after %s comes %s", spec, after, next)
			}
			after = next
		}
	})
}
