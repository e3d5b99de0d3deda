package jobspec

import "atoll/model"

// group reads a group block.
func (d *decoder) group(b *block) *model.TaskGroup {
	g := &model.TaskGroup{Name: d.label(b), Count: model.Unset}
	d.read(b, attrs{
		"count":                        func(v *value) { v.int(&g.Count) },
		"shutdown_delay":               func(v *value) { v.duration(&g.ShutdownDelay) },
		"max_run_duration":             opaqueValue(&g.MaxRunDuration),
		"stop_after_client_disconnect": opaqueValue(&g.StopAfterClientDisconnect),
		"max_client_disconnect":        opaqueValue(&g.MaxClientDisconnect),
		"prevent_reschedule_on_lost":   opaqueValue(&g.PreventRescheduleOnLost),
	}, blocks{
		"meta":           d.texts(&g.Meta),
		"constraint":     d.constraint(&g.Constraints),
		"task":           func(b *block) { g.Tasks = append(g.Tasks, d.task(b)) },
		"restart":        d.restart(&g.RestartPolicy),
		"reschedule":     d.reschedule(&g.ReschedulePolicy),
		"update":         d.update(&g.Update),
		"ephemeral_disk": d.disk(&g.EphemeralDisk),
		"network":        func(b *block) { g.Networks = append(g.Networks, d.network(b)) },
		"service":        func(b *block) { g.Services = append(g.Services, d.service(b)) },
		"affinity":       d.opaque(&g.Affinities),
		"spread":         d.opaque(&g.Spreads),
		"volume":         d.opaque(&g.Volumes),
		"disconnect":     d.disconnect(&g.Disconnect),
		"migrate":        d.migrate(&g.Migrate),
		"scaling":        d.scaling(&g.Scaling),
		"consul":         d.without,
	})
	g.DefaultCount()
	return g
}

func (d *decoder) scaling(to **model.ScalingPolicy) func(*block) {
	return func(b *block) {
		p := model.NewScalingPolicy()
		bound := func(to *int64) func(*value) {
			return func(v *value) {
				n := int(*to)
				v.int(&n)
				*to = int64(n)
			}
		}
		d.read(b, attrs{
			"min":     bound(&p.Min),
			"max":     bound(&p.Max),
			"enabled": func(v *value) { v.bool(&p.Enabled) },
			"type":    func(v *value) { v.string(&p.Type) },
		}, blocks{
			// Autoscalers read each block in it, also one that has a label,
			// as a list of one.
			"policy": func(b *block) { p.Policy = d.freely(b, true) },
		})
		*to = p
	}
}

func (d *decoder) disconnect(to **model.DisconnectStrategy) func(*block) {
	return func(b *block) {
		s := model.NewDisconnectStrategy()
		d.read(b, attrs{
			"lost_after":           func(v *value) { v.duration(&s.LostAfter) },
			"stop_on_client_after": func(v *value) { v.duration(&s.StopOnClientAfter) },
			"replace":              func(v *value) { v.bool(&s.Replace) },
			"reconcile":            func(v *value) { v.string(&s.Reconcile) },
		}, nil)
		*to = s
	}
}

func (d *decoder) migrate(to **model.MigrateStrategy) func(*block) {
	return func(b *block) {
		m := model.NewMigrateStrategy()
		d.read(b, attrs{
			"max_parallel":     func(v *value) { v.int(&m.MaxParallel) },
			"health_check":     func(v *value) { v.string(&m.HealthCheck) },
			"min_healthy_time": func(v *value) { v.duration(&m.MinHealthyTime) },
			"healthy_deadline": func(v *value) { v.duration(&m.HealthyDeadline) },
		}, nil)
		*to = m
	}
}

func (d *decoder) disk(to **model.EphemeralDisk) func(*block) {
	return func(b *block) {
		disk := model.NewEphemeralDisk()
		d.read(b, attrs{
			"size":    func(v *value) { v.int(&disk.SizeMB) },
			"sticky":  func(v *value) { v.bool(&disk.Sticky) },
			"migrate": func(v *value) { v.bool(&disk.Migrate) },
		}, nil)
		*to = disk
	}
}

// network reads a network block, of a group or, in the old form, of a task's
// resources.
func (d *decoder) network(b *block) *model.NetworkResource {
	n := &model.NetworkResource{}
	d.read(b, attrs{
		"mode":     func(v *value) { v.string(&n.Mode) },
		"mbits":    func(v *value) { v.int(&n.MBits) },
		"hostname": func(v *value) { v.string(&n.Hostname) },
	}, blocks{
		"dns": d.keep(&n.DNS, dnsParts, false),
		"cni": d.without,
		"port": func(b *block) {
			p := model.Port{Label: d.label(b)}
			d.read(b, attrs{
				"static":           func(v *value) { v.int(&p.Value) },
				"to":               func(v *value) { v.int(&p.To) },
				"host_network":     func(v *value) { v.string(&p.HostNetwork) },
				"ignore_collision": func(v *value) { v.bool(&p.IgnoreCollision) },
			}, nil)
			if p.Value != 0 {
				n.ReservedPorts = append(n.ReservedPorts, p)
			} else {
				n.DynamicPorts = append(n.DynamicPorts, p)
			}
		},
	})
	return n
}

// service reads a service block.
func (d *decoder) service(b *block) *model.Service {
	s := &model.Service{}
	if len(b.labels) == 1 {
		s.Name = b.labels[0]
	}
	d.read(b, attrs{
		"name":                func(v *value) { v.string(&s.Name) },
		"port":                func(v *value) { v.string(&s.PortLabel) },
		"provider":            func(v *value) { v.string(&s.Provider) },
		"tags":                func(v *value) { v.strings(&s.Tags) },
		"canary_tags":         func(v *value) { v.strings(&s.CanaryTags) },
		"address_mode":        func(v *value) { v.string(&s.AddressMode) },
		"address":             func(v *value) { v.string(&s.Address) },
		"task":                func(v *value) { v.string(&s.TaskName) },
		"on_update":           func(v *value) { v.string(&s.OnUpdate) },
		"enable_tag_override": func(v *value) { v.bool(&s.EnableTagOverride) },
		"cluster":             func(v *value) { v.string(&s.Cluster) },
		"kind":                func(v *value) { v.string(&s.Kind) },
		"tagged_addresses":    opaqueValue(&s.TaggedAddresses),
	}, blocks{
		"meta":          d.texts(&s.Meta),
		"canary_meta":   d.texts(&s.CanaryMeta),
		"check":         d.keep(&s.Checks, checkParts, true),
		"check_restart": d.keep(&s.CheckRestart, checkRestartParts, false),
		"connect":       d.without,
		"identity":      d.without,
		"weights":       d.keep(&s.Weights, weightParts, false),
	})
	return s
}
