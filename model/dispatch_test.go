package model

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestADispatchIsCheckedByWhatTheJobTakes(t *testing.T) {
	payload, err := CompressPayload([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	job := func(payload string) *Job {
		j := parent()
		j.Priority, j.Meta = 40, map[string]string{"team": "reef", "size": "small"}
		j.ParameterizedJob = &ParameterizedJobConfig{Payload: payload, MetaRequired: []string{"who", "where"}, MetaOptional: []string{"size"}}
		return j
	}
	good := map[string]string{"who": "a", "where": "b"}
	for name, c := range map[string]struct {
		job  *Job
		d    Dispatch
		kind Kind
		want string
	}{
		"nothing optional":    {job("optional"), Dispatch{Meta: good}, 0, ""},
		"all of it":           {job("required"), Dispatch{Meta: map[string]string{"who": "a", "where": "b", "size": "large"}, Payload: payload, Priority: 70}, 0, ""},
		"a payload too many":  {job("forbidden"), Dispatch{Meta: good, Payload: payload}, KindInvalid, "it forbids a payload, and there is one"},
		"no payload":          {job("required"), Dispatch{Meta: good}, KindInvalid, "it requires a payload, and there is none"},
		"missing keys":        {job("optional"), Dispatch{Meta: map[string]string{"size": "x"}}, KindInvalid, `it requires the metadata "who", "where"`},
		"unknown keys":        {job("optional"), Dispatch{Meta: map[string]string{"who": "a", "where": "b", "z": "", "team": "x"}}, KindInvalid, `it takes no metadata "team", "z"`},
		"too high a priority": {job("optional"), Dispatch{Meta: good, Priority: 101}, KindInvalid, "101 is not from 1 to 100"},
		"a bad prefix":        {job("optional"), Dispatch{Meta: good, ChildID: "p/dispatch-a b-1-0"}, KindInvalid, "IdPrefixTemplate"},
		"not parameterized":   {parent(), Dispatch{Meta: good}, KindInvalid, "it is not parameterized"},
		"a stopped one":       {func() *Job { j := job("optional"); j.Stop = true; return j }(), Dispatch{Meta: good}, KindConflict, "it is stopped"},
		"a child":             {func() *Job { j := job("optional"); j.Dispatched = true; return j }(), Dispatch{Meta: good}, KindInvalid, "it is not parameterized"},
	} {
		if c.d.ChildID == "" {
			c.d.ChildID = "p/dispatch-1-0"
		}
		c.d.Token, c.d.Time = "tok", 7
		child, err := c.job.Dispatch(&c.d)
		if c.want != "" {
			if err == nil || KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %s", name, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		priority, size := 40, "small"
		if c.d.Priority != 0 {
			priority, size = 70, "large"
		}
		if child.ID != c.d.ChildID || child.Name != child.ID || child.ParentID != "p" || !child.Dispatched || child.IsParent() || child.SubmitTime != 7 ||
			child.DispatchIdempotencyToken != "tok" || child.Priority != priority || child.Meta["team"] != "reef" || child.Meta["size"] != size || child.Meta["who"] != "a" {
			t.Errorf("%s: %+v", name, child)
		}
		if len(c.job.Meta) != 2 {
			t.Errorf("%s: the parent's own metadata are %v", name, c.job.Meta)
		}
	}
}

func TestAPayloadComesBackAndHasABound(t *testing.T) {
	for _, size := range []int{1, 100, MaxDispatchPayload} {
		want := bytes.Repeat([]byte("ab\x00c"), size)[:size]
		packed, err := CompressPayload(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := (&Job{Payload: packed}).DispatchedPayload()
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes came back as %d, %v", size, len(got), err)
		}
	}
	_, err := CompressPayload(make([]byte, MaxDispatchPayload+1))
	if KindOf(err) != KindTooLarge || !strings.Contains(err.Error(), "16385 bytes is over the limit of 16384") {
		t.Errorf("a byte too many: %v", err)
	}
	if packed, err := CompressPayload(nil); packed != nil || err != nil {
		t.Errorf("nothing: %v, %v", packed, err)
	}
	if got, err := (&Job{ID: "x", Payload: []byte{0xff, 0xff, 0xff, 0xff, 0x7f, 0}}).DispatchedPayload(); err == nil {
		t.Errorf("nonsense: %d bytes", len(got))
	}
}

func TestTheIdsOfChildren(t *testing.T) {
	now := time.Unix(1_700_000_000, 5)
	ids := bytes.NewReader(bytes.Repeat([]byte{0xab}, 32))
	if id := DispatchedID("p", "", now, ids); id != "p/dispatch-1700000000-abababab" {
		t.Error(id)
	}
	if id := DispatchedID("p", "big", now, ids); id != "p/dispatch-big-1700000000-abababab" {
		t.Error(id)
	}
	if id := PeriodicChildID("p", now); id != "p/periodic-1700000000" {
		t.Error(id)
	}
}
