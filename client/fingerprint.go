package client

import (
	"context"
	"maps"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/host"
	"github.com/shirou/gopsutil/v4/mem"

	"atoll/model"
)

// NomadVersion is the version of Nomad whose surface Atoll keeps, for job files
// that ask for one.
const NomadVersion = "2.0.0"

// fallbackMHz is a core's speed where the machine does not tell.
const fallbackMHz = 1000

// fingerprint looks at the machine. What it cannot find out it leaves out.
func (c *Client) fingerprint(ctx context.Context, id string) *model.Node {
	cfg := &c.cfg
	n := &model.Node{
		ID: id, Datacenter: cfg.Datacenter, NodePool: cfg.NodePool, Name: cfg.Name, NodeClass: cfg.NodeClass, HTTPAddr: cfg.HTTPAddr,
		Attributes: map[string]string{}, Meta: maps.Clone(cfg.Meta), Links: map[string]string{}, Drivers: map[string]*model.DriverInfo{},
		NodeResources:         &model.NodeResources{MinDynamicPort: cfg.MinDynamicPort, MaxDynamicPort: cfg.MaxDynamicPort},
		ReservedResources:     cfg.Reserved,
		SchedulingEligibility: model.NodeEligible,
	}
	if n.ReservedResources == nil {
		n.ReservedResources = &model.NodeReservedResources{}
	}
	if n.NodeResources.MinDynamicPort == 0 {
		n.NodeResources.MinDynamicPort = model.DefaultMinDynamicPort
	}
	if n.NodeResources.MaxDynamicPort == 0 {
		n.NodeResources.MaxDynamicPort = model.DefaultMaxDynamicPort
	}
	set := func(key, value string) {
		if value != "" {
			n.Attributes[key] = value
		}
	}
	set("nomad.version", NomadVersion)
	set("nomad.service_discovery", "false")
	set("atoll.version", cfg.Version)
	set("arch", runtime.GOARCH)
	set("cpu.arch", runtime.GOARCH)
	set("kernel.name", runtime.GOOS)
	set("os.name", runtime.GOOS)
	if name, err := os.Hostname(); err == nil {
		set("unique.hostname", name)
	}
	if info, err := host.InfoWithContext(ctx); err == nil {
		set("kernel.version", info.KernelVersion)
		set("kernel.arch", info.KernelArch)
		set("os.name", info.Platform)
		set("os.version", info.PlatformVersion)
	}
	c.fingerprintCPU(ctx, n, set)
	if m, err := mem.VirtualMemoryWithContext(ctx); err == nil {
		set("memory.totalbytes", strconv.FormatUint(m.Total, 10))
		n.NodeResources.Memory.MemoryMB = int64(m.Total >> 20)
	}
	if cfg.MemoryMB > 0 {
		n.NodeResources.Memory.MemoryMB = int64(cfg.MemoryMB)
	}
	if d, err := disk.UsageWithContext(ctx, cfg.AllocDir); err == nil {
		set("unique.storage.volume", d.Path)
		set("unique.storage.bytestotal", strconv.FormatUint(d.Total, 10))
		set("unique.storage.bytesfree", strconv.FormatUint(d.Free, 10))
		n.NodeResources.Disk.DiskMB = int64(d.Free >> 20)
	}
	if cfg.DiskMB > 0 {
		n.NodeResources.Disk.DiskMB = int64(cfg.DiskMB)
	}
	set("unique.network.ip-address", cfg.Address)
	n.NodeResources.Networks = []*model.NetworkResource{{Mode: "host", IP: cfg.Address, CIDR: cfg.Address + "/32"}}
	for _, name := range slices.Sorted(maps.Keys(c.drivers)) {
		c.fingerprintDriver(ctx, n, name)
	}
	return n
}

func (c *Client) fingerprintCPU(ctx context.Context, n *model.Node, set func(key, value string)) {
	cores := runtime.NumCPU()
	mhz := 0.0
	if infos, err := cpu.InfoWithContext(ctx); err == nil && len(infos) > 0 {
		set("cpu.modelname", infos[0].ModelName)
		mhz = infos[0].Mhz
	}
	if mhz < 1 {
		mhz = fallbackMHz
	}
	total := int64(float64(cores) * mhz)
	if c.cfg.CPU > 0 {
		total = int64(c.cfg.CPU)
	}
	set("cpu.numcores", strconv.Itoa(cores))
	set("cpu.frequency", strconv.Itoa(int(mhz)))
	set("cpu.totalcompute", strconv.FormatInt(total, 10))
	n.NodeResources.Cpu = model.NodeCpuResources{CpuShares: total, TotalCpuCores: uint16(cores)}
	for i := range cores {
		n.NodeResources.Cpu.ReservableCpuCores = append(n.NodeResources.Cpu.ReservableCpuCores, uint16(i))
	}
}

func (c *Client) fingerprintDriver(ctx context.Context, n *model.Node, name string) {
	f := c.drivers[name].Driver.Fingerprint(ctx)
	maps.Copy(n.Attributes, f.Attributes)
	n.Drivers[name] = &model.DriverInfo{
		Attributes: f.Attributes, Detected: f.Detected, Healthy: f.Healthy, HealthDescription: f.Description, UpdateTime: c.clock.Now().UTC(),
	}
}

// lookEvery is how often the drivers are looked at again: an engine may come or
// go.
const lookEvery = 5 * time.Second

// watchMachine registers the node anew when its drivers change.
func (c *Client) watchMachine(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		old := c.describe()
		n := model.Clone(old)
		for _, name := range slices.Sorted(maps.Keys(c.drivers)) {
			if before := old.Drivers[name]; before != nil {
				for k := range before.Attributes {
					delete(n.Attributes, k)
				}
			}
			c.fingerprintDriver(ctx, n, name)
			if is, was := n.Drivers[name], old.Drivers[name]; was != nil {
				same := *is
				same.UpdateTime = was.UpdateTime
				if reflect.DeepEqual(same, *was) {
					n.Drivers[name] = was
				}
			}
		}
		if ctx.Err() != nil || reflect.DeepEqual(n, old) {
			continue
		}
		c.mu.Lock()
		c.node = n
		c.mu.Unlock()
		select {
		case c.nodeChanged <- struct{}{}:
		default:
		}
	}
}
