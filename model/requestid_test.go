package model

import (
	"testing"
	"time"
)

func TestARequestIDTellsWhenItWasMade(t *testing.T) {
	now := time.UnixMilli(1_764_000_000_123)
	id := NewRequestID(now, nil)
	if got := RequestIssued(id); got != now.UnixNano() {
		t.Errorf("%s tells %d, want %d", id, got, now.UnixNano())
	}
	if other := NewRequestID(now, nil); other == id {
		t.Errorf("two ids of one moment are the same, %s", id)
	}
	for _, id := range []string{"", "mine", NewUUID(nil).String()} {
		if got := RequestIssued(id); got != 0 {
			t.Errorf("%q tells %d, want 0", id, got)
		}
	}
}
