package jobspec

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"atoll/model"
)

// Parts of a job that are kept and shown but not acted on are stored in the
// API's names, so that whoever reads the job back understands them.

// part is how a name of the file is called in the API. time marks what is a
// time there, in nanoseconds; within is a block's own names, and many a block
// that may come again.
type part struct {
	name   string
	time   bool
	many   bool
	within parts
}

type parts map[string]part

var (
	checkRestartParts = parts{"limit": {name: "Limit"}, "grace": {name: "Grace", time: true}, "ignore_warnings": {name: "IgnoreWarnings"}}

	checkParts = parts{
		"name": {name: "Name"}, "type": {name: "Type"}, "command": {name: "Command"}, "args": {name: "Args"}, "path": {name: "Path"},
		"protocol": {name: "Protocol"}, "port": {name: "PortLabel"}, "expose": {name: "Expose"}, "address_mode": {name: "AddressMode"},
		"interval": {name: "Interval", time: true}, "timeout": {name: "Timeout", time: true}, "initial_status": {name: "InitialStatus"},
		"notes": {name: "Notes"}, "tls_server_name": {name: "TLSServerName"}, "tls_skip_verify": {name: "TLSSkipVerify"},
		"header": {name: "Header"}, "method": {name: "Method"}, "body": {name: "Body"}, "grpc_service": {name: "GRPCService"},
		"grpc_use_tls": {name: "GRPCUseTLS"}, "task": {name: "TaskName"}, "success_before_passing": {name: "SuccessBeforePassing"},
		"failures_before_critical": {name: "FailuresBeforeCritical"}, "failures_before_warning": {name: "FailuresBeforeWarning"},
		"on_update": {name: "OnUpdate"}, "check_restart": {name: "CheckRestart", within: checkRestartParts},
	}

	weightParts = parts{"passing": {name: "Passing"}, "warning": {name: "Warning"}}

	uiParts = parts{"description": {name: "Description"}, "link": {name: "Links", many: true, within: parts{"label": {name: "Label"}, "url": {name: "Url"}}}}

	dnsParts = parts{"servers": {name: "Servers"}, "searches": {name: "Searches"}, "options": {name: "Options"}}
)

// keep reads a block by its names; list keeps all of several.
func (d *decoder) keep(to *model.Opaque, names parts, list bool) func(*block) {
	var all []any
	return func(b *block) {
		all = append(all, d.renamed(b, names))
		var v any = all
		if !list {
			v = all[len(all)-1]
		}
		text, err := json.Marshal(v)
		if err != nil {
			d.fault(b.at, b.path, "it cannot be kept: %v", err)
			return
		}
		*to = text
	}
}

func (d *decoder) renamed(b *block, names parts) map[string]any {
	out := make(map[string]any)
	as, bs := attrs{}, blocks{}
	for name, p := range names {
		if p.within == nil {
			as[name] = func(v *value) {
				if p.time {
					var t time.Duration
					v.duration(&t)
					out[p.name] = t
					return
				}
				out[p.name] = v.any()
			}
			// A header, say, may be a block too.
			bs[name] = func(b *block) { out[p.name] = d.free(b) }
			continue
		}
		bs[name] = func(b *block) {
			inner := d.renamed(b, p.within)
			if !p.many {
				out[p.name] = inner
				return
			}
			list, _ := out[p.name].([]any)
			out[p.name] = append(list, inner)
		}
	}
	d.read(b, as, bs)
	return out
}

// without refuses a block that this version does not have.
func (d *decoder) without(b *block) {
	d.fault(b.at, b.path, "the %s block is not supported by this version of Atoll; remove it", b.kind)
}

// names lists a table's, for hints.
func names[V any](table map[string]V) []string { return slices.Collect(maps.Keys(table)) }
