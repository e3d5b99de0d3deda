package boottime

import (
	"testing"
	"time"
)

func TestMomentsOfOneBootCanBeCompared(t *testing.T) {
	a := Now()
	if a.Boot == "" {
		t.Fatal("this system tells no moment")
	}
	for name, c := range map[string]struct {
		now, earlier Moment
		want         time.Duration
		ok           bool
	}{
		"the same":      {a, a, 0, true},
		"later":         {a.Add(time.Minute), a, time.Minute, true},
		"earlier":       {a, a.Add(1), 0, false},
		"another boot":  {a, Moment{"other", a.At}, 0, false},
		"none":          {a, Moment{}, 0, false},
		"none and none": {Moment{}, Moment{}, 0, false},
	} {
		if got, ok := c.now.Since(c.earlier); got != c.want || ok != c.ok {
			t.Errorf("%s: %s %v, want %s %v", name, got, ok, c.want, c.ok)
		}
	}
	if d, ok := Now().Since(a); !ok || d < 0 {
		t.Errorf("time ran back: %s %v", d, ok)
	}
}
