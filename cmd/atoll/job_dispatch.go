package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"

	"atoll/model"
)

func jobDispatchCommand() *cobra.Command {
	var m meta
	var detach bool
	var token string
	var pairsOfMeta []string
	opts := &api.DispatchOptions{}
	c := &cobra.Command{
		Use: "dispatch JOB [INPUT]", Short: "Run an instance of a parameterized job", Args: cobra.RangeArgs(1, 2),
		Long: "Runs an instance of a parameterized job. Its payload is the file INPUT, or what comes on standard input when that is \"-\".",
		RunE: m.inOneRegion(func(c *cobra.Command, client *api.Client, args []string) error {
			var err error
			if opts.Meta, err = keysAndValues(pairsOfMeta); err != nil {
				return err
			}
			if len(args) == 2 {
				if opts.Payload, err = readPayload(c.InOrStdin(), args[1]); err != nil {
					return err
				}
			}
			if opts.JobID, err = findParent(client, args[0], func(j *api.JobListStub) bool { return j.ParameterizedJob }); err != nil {
				return err
			}
			out, _, err := client.Jobs().DispatchOpts(opts, &api.WriteOptions{IdempotencyToken: token})
			if err != nil {
				return err
			}
			return dispatched(c, &m, client, opts.JobID, out, token, detach)
		}),
	}
	m.flags(c)
	f := c.Flags()
	f.StringArrayVar(&pairsOfMeta, "meta", nil, "metadata of the instance `KEY=VALUE`; may come again")
	f.BoolVar(&detach, "detach", false, "do not follow the evaluation")
	f.StringVar(&token, "idempotency-token", "", "`TOKEN` for which there is one instance, however often it is dispatched")
	f.StringVar(&opts.IdPrefixTemplate, "id-prefix-template", "", "`PREFIX` within the instance's id")
	f.IntVar(&opts.Priority, "priority", 0, "the instance's priority `NUMBER`; that of the job when not given")
	m.verboseFlag(c)
	return c
}

// dispatched tells what came of a dispatch.
func dispatched(c *cobra.Command, m *meta, client *api.Client, parent string, out *api.JobDispatchResponse, token string, detach bool) error {
	w := c.OutOrStdout()
	if out.EvalID == "" {
		job, _, err := client.Jobs().Info(parent, nil)
		if err != nil {
			return err
		}
		if token != "" && !job.IsPeriodic() {
			fmt.Fprintf(w, "Job %q already dispatched with idempotency token %q.\n", out.DispatchedJobID, token)
			return nil
		}
		fmt.Fprintln(w, pairs([]string{"Dispatched Job ID|" + cell(out.DispatchedJobID)}))
		return nil
	}
	fmt.Fprintln(w, pairs([]string{"Dispatched Job ID|" + cell(out.DispatchedJobID), "Evaluation ID|" + m.id(out.EvalID)}))
	if detach {
		return nil
	}
	fmt.Fprintln(w)
	return m.follow(c, client, out.EvalID)
}

// findParent returns the id of the one job of a kind that an id or its beginning
// names. Children begin as their parents do.
func findParent(client *api.Client, prefix string, is func(*api.JobListStub) bool) (string, error) {
	jobs, _, err := client.Jobs().PrefixList(prefix)
	if err != nil {
		return "", err
	}
	var ids []string
	for _, j := range jobs {
		// Whatever is named whole is taken at its word, and the server says
		// what is wrong with it.
		if j.ID == prefix {
			return prefix, nil
		}
		if is(j) {
			ids = append(ids, j.ID)
		}
	}
	return unique("such job", prefix, ids)
}

func keysAndValues(given []string) (map[string]string, error) {
	out := make(map[string]string, len(given))
	for _, kv := range given {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			return nil, fmt.Errorf("-meta %q is not KEY=VALUE", kv)
		}
		out[k] = v
	}
	return out, nil
}

// readPayload reads one byte more than a payload may have, so that one that is too
// long is known for it.
func readPayload(stdin io.Reader, name string) ([]byte, error) {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("cannot read the payload: %w", err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, model.MaxDispatchPayload+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the payload: %w", err)
	}
	if len(b) > model.MaxDispatchPayload {
		return nil, fmt.Errorf("the payload %s is over the limit of %d bytes", name, model.MaxDispatchPayload)
	}
	return b, nil
}
