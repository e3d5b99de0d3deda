package jobspec

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"atoll/model"
)

// Places are where the parts of a job are written, so that what is found wrong
// with it later can still be told with file and line.
type Places struct {
	at map[string]hcl.Range
}

func newPlaces() *Places { return &Places{at: make(map[string]hcl.Range)} }

// spelling makes one of a file's paths and a job's fields, of which the latter
// have " > " before tasks only. Fields also begin with "job." where they are the
// job's own, and number what has no name.
var spelling = strings.NewReplacer(" > ", ".")

// note keeps the first place of a path: repeated blocks without names share one.
func (p *Places) note(path string, at hcl.Range) {
	if path = spelling.Replace(path); path != "" {
		if _, twice := p.at[path]; !twice {
			p.at[path] = at
		}
	}
}

// Refuse makes one error of what is wrong with the job, each fault with its
// file and line: that of the field, or of the nearest block around it that is
// written.
func (p *Places) Refuse(faults []*model.Error) error {
	placed := make([]*model.Error, len(faults))
	for i, f := range faults {
		with := *f
		if at, ok := p.find(f.Field); ok {
			with.Message = fmt.Sprintf("%s:%d: %s", at.Filename, at.Start.Line, f.Message)
		}
		placed[i] = &with
	}
	return model.JoinFaults("", placed)
}

func (p *Places) find(field string) (hcl.Range, bool) {
	for path := strings.TrimPrefix(spelling.Replace(field), "job."); path != ""; {
		if at, ok := p.at[path]; ok {
			return at, true
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	at, ok := p.at["job"]
	return at, ok
}
