package jobspec

import "atoll/model"

// task reads a task block.
func (d *decoder) task(b *block) *model.Task {
	t := &model.Task{Name: d.label(b), KillTimeout: model.DefaultKillTimeout}
	d.read(b, attrs{
		"driver":         func(v *value) { v.string(&t.Driver) },
		"user":           func(v *value) { v.string(&t.User) },
		"leader":         func(v *value) { v.bool(&t.Leader) },
		"kill_timeout":   func(v *value) { v.duration(&t.KillTimeout) },
		"kill_signal":    func(v *value) { v.string(&t.KillSignal) },
		"shutdown_delay": func(v *value) { v.duration(&t.ShutdownDelay) },
		"kind":           func(v *value) { v.string(&t.Kind) },
	}, blocks{
		"config":           func(b *block) { t.Config = d.config(b) },
		"env":              d.texts(&t.Env),
		"meta":             d.texts(&t.Meta),
		"constraint":       d.constraint(&t.Constraints),
		"resources":        func(b *block) { t.Resources = d.resources(b) },
		"logs":             func(b *block) { t.LogConfig = d.logs(b) },
		"restart":          d.restart(&t.RestartPolicy),
		"service":          func(b *block) { t.Services = append(t.Services, d.service(b)) },
		"affinity":         d.opaque(&t.Affinities),
		"lifecycle":        d.opaque(&t.Lifecycle),
		"artifact":         d.opaque(&t.Artifacts),
		"template":         d.opaque(&t.Templates),
		"vault":            d.opaque(&t.Vault),
		"consul":           d.without,
		"dispatch_payload": d.dispatchPayload(&t.DispatchPayload),
		"volume_mount":     d.opaque(&t.VolumeMounts),
		"csi_plugin":       d.opaque(&t.CSIPluginConfig),
		"scaling":          d.opaque(&t.ScalingPolicies),
		"secret":           d.opaque(&t.Secrets),
		"identity":         d.without,
		"action":           d.opaque(&t.Actions),
		"schedule":         d.opaque(&t.Schedule),
	})
	return t
}

// config reads a driver's configuration. port_map, which may be a block or a
// map, is a list of maps like any block.
func (d *decoder) config(b *block) map[string]any {
	out := d.free(b)
	if m, ok := out["port_map"].(map[string]any); ok {
		out["port_map"] = []any{m}
	}
	return out
}

func (d *decoder) resources(b *block) *model.Resources {
	r := model.NewResources()
	d.read(b, attrs{
		"cpu":        func(v *value) { v.int(&r.CPU) },
		"cores":      func(v *value) { v.int(&r.Cores) },
		"memory":     func(v *value) { v.int(&r.MemoryMB) },
		"memory_max": func(v *value) { v.int(&r.MemoryMaxMB) },
		"disk":       func(v *value) { v.int(&r.DiskMB) },
		"iops":       func(v *value) { v.int(&r.IOPS) },
		"secrets":    func(v *value) { v.int(&r.SecretsMB) },
	}, blocks{
		"network": func(b *block) { r.Networks = append(r.Networks, d.network(b)) },
		"device":  d.opaque(&r.Devices),
		"numa":    d.opaque(&r.NUMA),
	})
	return r
}

func (d *decoder) logs(b *block) *model.LogConfig {
	l := model.NewLogConfig()
	d.read(b, attrs{
		"max_files":     func(v *value) { v.int(&l.MaxFiles) },
		"max_file_size": func(v *value) { v.int(&l.MaxFileSizeMB) },
		"disabled":      func(v *value) { v.bool(&l.Disabled) },
		"enabled": func(v *value) {
			on := true
			v.bool(&on)
			l.Disabled = !on
		},
	}, nil)
	return l
}
