package jobspec

import "atoll/model"

// The blocks of jobs that run as their children only, and of what they are given.

func (d *decoder) periodic(to **model.PeriodicConfig) func(*block) {
	return func(b *block) {
		p := model.NewPeriodicConfig()
		d.read(b, attrs{
			"enabled":          func(v *value) { v.bool(&p.Enabled) },
			"cron":             func(v *value) { v.string(&p.Spec) },
			"crons":            func(v *value) { v.strings(&p.Specs) },
			"prohibit_overlap": func(v *value) { v.bool(&p.ProhibitOverlap) },
			"time_zone":        func(v *value) { v.string(&p.TimeZone) },
		}, nil)
		*to = p
	}
}

func (d *decoder) parameterized(to **model.ParameterizedJobConfig) func(*block) {
	return func(b *block) {
		p := &model.ParameterizedJobConfig{}
		d.read(b, attrs{
			"payload":       func(v *value) { v.string(&p.Payload) },
			"meta_required": func(v *value) { v.strings(&p.MetaRequired) },
			"meta_optional": func(v *value) { v.strings(&p.MetaOptional) },
		}, nil)
		*to = p
	}
}

func (d *decoder) dispatchPayload(to **model.DispatchPayloadConfig) func(*block) {
	return func(b *block) {
		p := &model.DispatchPayloadConfig{}
		d.read(b, attrs{"file": func(v *value) { v.string(&p.File) }}, nil)
		*to = p
	}
}
