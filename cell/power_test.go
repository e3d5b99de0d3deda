package cell

import (
	"fmt"
	"testing"
)

// Here the page cache survives; power_loss_test.go takes that away too (make power).
func TestNothingAckedIsLostWhenAllServersAreKilledAtOnce(t *testing.T) {
	p := newProcesses(t, t.TempDir())
	for round := range 4 {
		p.start(ringNames...)
		p.settle()
		// Many writers, so that the kill comes amid their writes.
		p.write(fmt.Sprintf("r%d", round), 60)
		p.kill()
		p.begun()
	}
	for _, fault := range p.faults() {
		t.Error(fault)
	}
	if n := p.count(); n < 200 {
		t.Errorf("%d writes were acked: too few to say anything", n)
	}
}
