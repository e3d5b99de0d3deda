package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"
)

func schedulerGetCommand() *cobra.Command {
	var m meta
	c := &cobra.Command{
		Use: "get-config", Short: "Show the scheduler configuration", Args: cobra.NoArgs,
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, _ []string) error {
			out, _, err := client.Operator().SchedulerGetConfiguration(nil)
			if err != nil {
				return err
			}
			if m.json {
				return printJSON(c.OutOrStdout(), out)
			}
			conf := out.SchedulerConfig
			fmt.Fprintln(c.OutOrStdout(), pairs([]string{
				fmt.Sprintf("Scheduler Algorithm|%s", conf.SchedulerAlgorithm), fmt.Sprintf("Memory Oversubscription|%v", conf.MemoryOversubscriptionEnabled),
				fmt.Sprintf("Reject Job Registration|%v", conf.RejectJobRegistration), fmt.Sprintf("Pause Eval Broker|%v", conf.PauseEvalBroker),
				fmt.Sprintf("Preemption System Scheduler|%v", conf.PreemptionConfig.SystemSchedulerEnabled),
				fmt.Sprintf("Preemption Service Scheduler|%v", conf.PreemptionConfig.ServiceSchedulerEnabled),
				fmt.Sprintf("Preemption Batch Scheduler|%v", conf.PreemptionConfig.BatchSchedulerEnabled),
				fmt.Sprintf("Preemption SysBatch Scheduler|%v", conf.PreemptionConfig.SysBatchSchedulerEnabled),
				fmt.Sprintf("Modify Index|%d", conf.ModifyIndex),
			}))
			return nil
		}),
	}
	m.flags(c)
	m.jsonFlag(c)
	return c
}

func schedulerSetCommand() *cobra.Command {
	var m meta
	var check, algorithm string
	c := &cobra.Command{
		Use: "set-config", Short: "Change the scheduler configuration; what is not given stays", Args: cobra.NoArgs,
	}
	m.flags(c)
	f := c.Flags()
	f.StringVar(&check, "check-index", "", "change nothing unless the configuration is at `INDEX`")
	f.StringVar(&algorithm, "scheduler-algorithm", "", "how nodes are filled: binpack (one after another) or spread (evenly)")
	// As Nomad's, each takes its value after an equals sign. Of memory and
	// preemption Atoll supports false alone.
	flags := map[string]func(*api.SchedulerConfiguration) *bool{}
	add := func(name, usage string, at func(*api.SchedulerConfiguration) *bool) {
		f.Bool(name, false, usage)
		flags[name] = at
	}
	add("reject-job-registration", "refuse jobs, new and changed", func(c *api.SchedulerConfiguration) *bool { return &c.RejectJobRegistration })
	add("pause-eval-broker", "place nothing until this is false again", func(c *api.SchedulerConfiguration) *bool { return &c.PauseEvalBroker })
	add("memory-oversubscription", "let tasks use more memory than they reserve", func(c *api.SchedulerConfiguration) *bool { return &c.MemoryOversubscriptionEnabled })
	for name, at := range map[string]func(*api.PreemptionConfig) *bool{
		"system":   func(p *api.PreemptionConfig) *bool { return &p.SystemSchedulerEnabled },
		"service":  func(p *api.PreemptionConfig) *bool { return &p.ServiceSchedulerEnabled },
		"batch":    func(p *api.PreemptionConfig) *bool { return &p.BatchSchedulerEnabled },
		"sysbatch": func(p *api.PreemptionConfig) *bool { return &p.SysBatchSchedulerEnabled },
	} {
		add("preempt-"+name+"-scheduler", "let "+name+" jobs take the place of others of a lower priority",
			func(c *api.SchedulerConfiguration) *bool { return at(&c.PreemptionConfig) })
	}
	c.RunE = m.inOneRegion(func(c *cobra.Command, client *api.Client, _ []string) error {
		out, _, err := client.Operator().SchedulerGetConfiguration(nil)
		if err != nil {
			return err
		}
		conf := out.SchedulerConfig
		if algorithm != "" {
			conf.SchedulerAlgorithm = api.SchedulerAlgorithm(algorithm)
		}
		for name, at := range flags {
			if f.Changed(name) {
				if *at(conf), err = f.GetBool(name); err != nil {
					return err
				}
			}
		}
		// Somebody else's change meanwhile is never undone unseen.
		if check != "" {
			if conf.ModifyIndex, err = strconv.ParseUint(check, 10, 64); err != nil {
				return fmt.Errorf("-check-index %q is no index", check)
			}
		}
		set, _, err := client.Operator().SchedulerCASConfiguration(conf, nil)
		if err != nil {
			return err
		}
		if !set.Updated {
			return errors.New("the scheduler configuration is at another index than was looked for; look at it, and try again")
		}
		fmt.Fprintln(c.OutOrStdout(), "Scheduler configuration updated!")
		return nil
	})
	return c
}
