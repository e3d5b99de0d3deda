package nearest

import "testing"

func TestWord(t *testing.T) {
	known := []string{"count", "task", "network", "restart"}
	for word, want := range map[string]string{"cuont": "count", "taks": "task", "networks": "network", "count": "count", "": "", "zzzzz": "", "reschedule": ""} {
		if got := Word(word, known); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}
