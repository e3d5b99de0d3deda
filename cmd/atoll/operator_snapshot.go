package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"

	"atoll/agent"
	"atoll/cell/state"
)

func snapshotSaveCommand() *cobra.Command {
	var m meta
	var stale bool
	c := &cobra.Command{
		Use: "save [FILE]", Short: "Save the state of a region", Args: cobra.MaximumNArgs(1),
		Long: "Save the whole state of a region to a file, by default one named by the time. It holds the nodes' secrets: keep it as one.",
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, args []string) (err error) {
			name := "atoll-" + time.Now().UTC().Format("20060102-150405Z") + ".snap"
			if len(args) > 0 {
				name = args[0]
			}
			// Nobody finds half a snapshot under the name of a whole one.
			part := name + ".part"
			f, err := os.OpenFile(part, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
			if err != nil {
				return fmt.Errorf("cannot write the snapshot: %w", err)
			}
			defer func() {
				if err != nil {
					_ = os.Remove(part)
				}
			}()
			in, err := client.Operator().Snapshot(&api.QueryOptions{AllowStale: stale})
			if err != nil {
				return errors.Join(err, f.Close())
			}
			defer in.Close()
			size, err := io.Copy(f, in)
			if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
				return fmt.Errorf("cannot write the snapshot: %w", err)
			}
			info, _, err := inspectFile(part)
			if err != nil {
				return err
			}
			if err := os.Rename(part, name); err != nil {
				return fmt.Errorf("cannot write the snapshot: %w", err)
			}
			fmt.Fprintf(c.OutOrStdout(), "State of region %q at index %d saved to %s, %d bytes\n", info.Cell.Region, info.Index, name, size)
			return nil
		}),
	}
	m.flags(c)
	c.Flags().BoolVar(&stale, "stale", false, "let any server answer, when there is no leader; the newest writes may be missing")
	return c
}

// inspectFile reads a saved snapshot whole.
func inspectFile(name string) (*state.SnapshotInfo, time.Time, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("cannot read the snapshot: %w", err)
	}
	defer f.Close()
	info, at, err := state.InspectArchive(f, agent.Build)
	if err != nil {
		return nil, at, fmt.Errorf("%s: %w", name, err)
	}
	if info.Cell == nil {
		info.Cell = &state.Cell{}
	}
	return info, at, nil
}

func snapshotInspectCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "inspect FILE", Short: "Check a saved snapshot and show what is in it", Args: cobra.ExactArgs(1),
		Long: "Read a saved snapshot whole, check every record of it, and show what is in it. No agent is asked.",
		RunE: func(c *cobra.Command, args []string) error {
			info, at, err := inspectFile(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), struct {
					*state.SnapshotInfo
					Saved time.Time
				}{info, at.UTC()})
			}
			fmt.Fprintln(c.OutOrStdout(), pairs([]string{
				"Saved|" + at.UTC().Format(time.RFC3339), "Region|" + info.Cell.Region, "Cell|" + info.Cell.ID, "Incarnation|" + cell(info.Cell.Incarnation),
				fmt.Sprintf("Index|%d", info.Index), fmt.Sprintf("Format|%d", info.Version), "Written by|" + cell(info.Written),
			}))
			rows := []string{"Table|Records|Size"}
			var records uint64
			for _, t := range info.Tables {
				rows = append(rows, fmt.Sprintf("%s|%d|%d", t.Name, t.Records, t.Bytes))
				records += t.Records
			}
			rows = append(rows, fmt.Sprintf("Total|%d|%d", records, info.Size))
			fmt.Fprintf(c.OutOrStdout(), "\n%s\n", list(rows))
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func snapshotRestoreCommand() *cobra.Command {
	var m meta
	c := &cobra.Command{
		Use: "restore FILE", Short: "Restore the state of a region from a saved snapshot", Args: cobra.ExactArgs(1),
		Long: "Replace the whole state of a region by a saved one. What was written since that was saved is lost, and nodes stop work that it does not know. " +
			"The servers stay; the cell becomes the one that was saved, in a new incarnation.",
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, args []string) error {
			info, _, err := inspectFile(args[0])
			if err != nil {
				return err
			}
			f, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("cannot read the snapshot: %w", err)
			}
			defer f.Close()
			if _, err := client.Operator().SnapshotRestore(f, nil); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "State of region %q at index %d restored\n", info.Cell.Region, info.Index)
			return nil
		}),
	}
	m.flags(c)
	return c
}
