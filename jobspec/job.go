package jobspec

import (
	"atoll/model"
)

// job reads the job block.
func (d *decoder) job(b *block) *model.Job {
	j := &model.Job{Priority: model.JobDefaultPriority}
	j.ID = d.label(b)
	j.Name = j.ID
	d.read(b, attrs{
		"region":      func(v *value) { v.string(&j.Region) },
		"namespace":   func(v *value) { v.string(&j.Namespace) },
		"id":          func(v *value) { v.string(&j.ID) },
		"name":        func(v *value) { v.string(&j.Name) },
		"type":        func(v *value) { v.string(&j.Type) },
		"priority":    func(v *value) { v.int(&j.Priority) },
		"all_at_once": func(v *value) { v.bool(&j.AllAtOnce) },
		"datacenters": func(v *value) { v.strings(&j.Datacenters) },
		"node_pool":   func(v *value) { v.string(&j.NodePool) },
	}, blocks{
		"meta":          d.texts(&j.Meta),
		"constraint":    d.constraint(&j.Constraints),
		"group":         func(b *block) { j.TaskGroups = append(j.TaskGroups, d.group(b)) },
		"update":        d.update(&j.Update),
		"reschedule":    d.reschedule(&j.Reschedule),
		"affinity":      d.opaque(&j.Affinities),
		"spread":        d.opaque(&j.Spreads),
		"multiregion":   d.multiregion(&j.Multiregion),
		"periodic":      d.periodic(&j.Periodic),
		"parameterized": d.parameterized(&j.ParameterizedJob),
		"migrate":       d.migrate(&j.Migrate),
		"ui":            d.keep(&j.UI, uiParts, false),
		// A task of the job's own is a group of its name.
		"task": func(b *block) {
			t := d.task(b)
			j.TaskGroups = append(j.TaskGroups, &model.TaskGroup{Name: t.Name, Count: 1, Tasks: []*model.Task{t}})
		},
	})
	return j
}

func (d *decoder) constraint(to *[]*model.Constraint) func(*block) {
	return func(b *block) {
		c := &model.Constraint{}
		short := func(operand string) func(*value) {
			return func(v *value) {
				c.Operand = operand
				v.string(&c.RTarget)
			}
		}
		flag := func(operand string) func(*value) {
			return func(v *value) {
				on := false
				if v.bool(&on); on {
					c.Operand = operand
				}
			}
		}
		off := false
		d.read(b, attrs{
			"attribute":        func(v *value) { v.string(&c.LTarget) },
			"operator":         func(v *value) { v.string(&c.Operand) },
			"value":            func(v *value) { v.string(&c.RTarget) },
			"version":          short(model.ConstraintVersion),
			"semver":           short(model.ConstraintSemver),
			"regexp":           short(model.ConstraintRegexp),
			"set_contains":     short(model.ConstraintSetContains),
			"set_contains_all": short(model.ConstraintSetContainsAll),
			"set_contains_any": short(model.ConstraintSetContainsAny),
			"is_set":           flag(model.ConstraintIsSet),
			"is_not_set":       flag(model.ConstraintIsNotSet),
			"distinct_hosts": func(v *value) {
				on := false
				v.bool(&on)
				c.Operand, off = model.ConstraintDistinctHosts, !on
			},
			"distinct_property": func(v *value) {
				c.Operand = model.ConstraintDistinctProp
				v.string(&c.LTarget)
			},
		}, nil)
		if c.Operand == "" {
			c.Operand = "="
		}
		if !off {
			*to = append(*to, c)
		}
	}
}

func (d *decoder) multiregion(to **model.Multiregion) func(*block) {
	return func(b *block) {
		m := &model.Multiregion{}
		d.read(b, attrs{
			"count":     func(v *value) { v.int(&m.Count) },
			"placement": func(v *value) { v.string(&m.Placement) },
		}, blocks{
			"strategy": func(b *block) {
				m.Strategy = &model.MultiregionStrategy{}
				d.read(b, attrs{
					"max_parallel":   func(v *value) { v.int(&m.Strategy.MaxParallel) },
					"on_failure":     func(v *value) { v.string(&m.Strategy.OnFailure) },
					"on_unreachable": func(v *value) { v.string(&m.Strategy.OnUnreachable) },
				}, nil)
			},
			"region": func(b *block) {
				r := model.NewMultiregionRegion()
				r.Name = d.label(b)
				d.read(b, attrs{
					"count":       func(v *value) { v.int(&r.Count) },
					"datacenters": func(v *value) { v.strings(&r.Datacenters) },
					"node_pool":   func(v *value) { v.string(&r.NodePool) },
					"weight":      func(v *value) { v.int(&r.Weight) },
					"min":         func(v *value) { v.int(&r.Min) },
					"max":         func(v *value) { v.int(&r.Max) },
				}, blocks{"meta": d.texts(&r.Meta)})
				m.Regions = append(m.Regions, r)
			},
		})
		*to = m
	}
}

func (d *decoder) update(to **model.UpdateStrategy) func(*block) {
	return func(b *block) {
		u := model.NewUpdateStrategy()
		d.read(b, attrs{
			"stagger":           func(v *value) { v.duration(&u.Stagger) },
			"max_parallel":      func(v *value) { v.int(&u.MaxParallel) },
			"health_check":      func(v *value) { v.string(&u.HealthCheck) },
			"min_healthy_time":  func(v *value) { v.duration(&u.MinHealthyTime) },
			"healthy_deadline":  func(v *value) { v.duration(&u.HealthyDeadline) },
			"progress_deadline": func(v *value) { v.duration(&u.ProgressDeadline) },
			"canary":            func(v *value) { v.int(&u.Canary) },
			"auto_revert":       func(v *value) { v.bool(&u.AutoRevert); u.AutoRevertGiven = true },
			"auto_promote":      func(v *value) { v.bool(&u.AutoPromote); u.AutoPromoteGiven = true },
		}, nil)
		*to = u
	}
}

func (d *decoder) reschedule(to **model.ReschedulePolicy) func(*block) {
	return func(b *block) {
		p := model.NewReschedulePolicy()
		d.read(b, attrs{
			"attempts":       func(v *value) { v.int(&p.Attempts) },
			"interval":       func(v *value) { v.duration(&p.Interval) },
			"delay":          func(v *value) { v.duration(&p.Delay) },
			"delay_function": func(v *value) { v.string(&p.DelayFunction) },
			"max_delay":      func(v *value) { v.duration(&p.MaxDelay) },
			"unlimited":      func(v *value) { v.bool(&p.Unlimited); p.UnlimitedGiven = true },
		}, nil)
		*to = p
	}
}

func (d *decoder) restart(to **model.RestartPolicy) func(*block) {
	return func(b *block) {
		p := model.NewRestartPolicy()
		d.read(b, attrs{
			"attempts":         func(v *value) { v.int(&p.Attempts) },
			"interval":         func(v *value) { v.duration(&p.Interval) },
			"delay":            func(v *value) { v.duration(&p.Delay) },
			"mode":             func(v *value) { v.string(&p.Mode) },
			"render_templates": func(v *value) { v.bool(&p.RenderTemplates) },
		}, nil)
		*to = p
	}
}
