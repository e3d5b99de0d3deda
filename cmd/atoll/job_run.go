package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"

	apiclient "atoll/api/client"
	"atoll/jobspec"
	"atoll/model"
)

func jobRunCommand() *cobra.Command {
	var m meta
	var in jobInput
	var detach, output, preserve bool
	var checkIndex string
	c := &cobra.Command{
		Use: "run FILE", Short: "Submit a job", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := m.oneRegion(); err != nil {
				return err
			}
			job, err := in.read(c, args[0])
			if err != nil {
				return err
			}
			switch multi := in.job.Multiregional(); {
			case output && multi:
				return printJSON(c.OutOrStdout(), map[string]any{"Job": in.job})
			case output:
				return printJSON(c.OutOrStdout(), map[string]any{"Job": job})
			case multi:
				opts := apiclient.RegisterOptions{Region: m.asked()}
				if err := checked(checkIndex, &opts.EnforceIndex, &opts.ModifyIndex); err != nil {
					return err
				}
				return submitEverywhere(c, &m, in.job, opts, detach)
			}
			return submit(c, &m, job, &api.RegisterOptions{PreserveCounts: preserve}, checkIndex, detach)
		},
	}
	m.flags(c)
	in.flags(c)
	f := c.Flags()
	f.BoolVar(&detach, "detach", false, "do not follow the evaluation")
	f.BoolVar(&output, "output", false, "print the job as JSON instead of submitting it")
	f.StringVar(&checkIndex, "check-index", "", "submit only if the job's modify `INDEX` is this; 0 for a job that is new")
	f.BoolVar(&preserve, "preserve-counts", false, "keep the counts that the job's groups have")
	m.verboseFlag(c)
	return c
}

// submit registers the job and follows what comes of it.
func submit(c *cobra.Command, m *meta, job *api.Job, opts *api.RegisterOptions, checkIndex string, detach bool) error {
	client, err := m.client()
	if err != nil {
		return err
	}
	if err := checked(checkIndex, &opts.EnforceIndex, &opts.ModifyIndex); err != nil {
		return err
	}
	write, query := pointAt(client, job)
	resp, _, err := client.Jobs().RegisterOpts(job, opts, write)
	if err != nil {
		return err
	}
	if resp.Warnings != "" {
		fmt.Fprintf(c.ErrOrStderr(), "Job Warnings:\n%s\n\n", resp.Warnings)
	}
	if detach || resp.EvalID == "" {
		fmt.Fprintln(c.OutOrStdout(), "Job registration successful")
		if resp.EvalID != "" {
			fmt.Fprintln(c.OutOrStdout(), "Evaluation ID: "+resp.EvalID)
		}
		if next := nextLaunch(job); next != "" {
			fmt.Fprintln(c.OutOrStdout(), "Approximate next launch time: "+next)
		}
		return nil
	}
	return (&monitor{meta: m, client: client, out: c.OutOrStdout(), query: query}).follow(c, resp.EvalID)
}

// checked reads the flag -check-index.
func checked(flag string, enforce *bool, index *uint64) (err error) {
	if *enforce = flag != ""; *enforce {
		if *index, err = strconv.ParseUint(flag, 10, 64); err != nil {
			return fmt.Errorf("-check-index %q is no number", flag)
		}
	}
	return nil
}

// pointAt makes the client ask where a job belongs: the job file's region and
// namespace win over flags.
func pointAt(client *api.Client, job *api.Job) (*api.WriteOptions, *api.QueryOptions) {
	write, query := &api.WriteOptions{}, &api.QueryOptions{}
	if r := deref(job.Region); r != "" && r != model.GlobalRegion {
		client.SetRegion(r)
		write.Region, query.Region = r, r
	}
	if n := deref(job.Namespace); n != "" {
		client.SetNamespace(n)
		write.Namespace, query.Namespace = n, n
	}
	return write, query
}

// jobInput is how a job is given.
type jobInput struct {
	// job is the one that was read, with what the official client's type has no
	// words for.
	job            *model.Job
	vars, varFiles []string
	json           bool
	loose          bool
}

func (in *jobInput) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVar(&in.vars, "var", nil, "a variable's value `NAME=VALUE`; may come again")
	f.StringArrayVar(&in.varFiles, "var-file", nil, "`FILE` of variables; may come again")
	f.BoolVar(&in.json, "json", false, "the file is JSON")
	strict := f.Bool("hcl2-strict", true, "refuse values of variables that the file does not declare")
	c.PreRun = func(*cobra.Command, []string) { in.loose = !*strict }
}

// maxInput bounds a job file in bytes; the parser's own bound is lower.
const maxInput = 16 << 20

// read reads a job file, "-" being standard input, as the official client has
// it. What a server would refuse without looking is refused here, with the
// file's own words.
func (in *jobInput) read(c *cobra.Command, name string) (*api.Job, error) {
	var src []byte
	var err error
	if name == "-" {
		src, err = io.ReadAll(io.LimitReader(c.InOrStdin(), maxInput))
	} else {
		src, err = readBounded(name)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the job: %w", err)
	}
	job, places := new(model.Job), (*jobspec.Places)(nil)
	if in.json {
		var outer struct{ Job *model.Job }
		if err := json.Unmarshal(src, &outer); err != nil {
			return nil, jsonFault(name, src, err)
		}
		if job = outer.Job; job == nil {
			job = new(model.Job)
			if err := json.Unmarshal(src, job); err != nil {
				return nil, jsonFault(name, src, err)
			}
		}
	} else if job, places, err = in.parse(name, src); err != nil {
		return nil, err
	}
	checked := model.Clone(job)
	checked.Canonicalize()
	faults, _ := checked.Faults()
	if len(faults) == 0 {
		faults = checked.TaskFaults(checkTask)
	}
	if places == nil {
		err = model.JoinFaults(name+": ", faults)
	} else {
		err = places.Refuse(faults)
	}
	if err != nil {
		return nil, err
	}
	in.job = job
	b, err := json.Marshal(job)
	if err != nil {
		return nil, fmt.Errorf("cannot send the job: %w", err)
	}
	out := new(api.Job)
	if err := json.Unmarshal(b, out); err != nil {
		return nil, fmt.Errorf("cannot send the job: %w", err)
	}
	return out, nil
}

// jsonFault words what is wrong with a job in JSON: with its line, or with its
// field, whose place the decoder counts from the object around it.
func jsonFault(name string, src []byte, err error) error {
	var syntax *json.SyntaxError
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("%s:%d: %w", name, 1+bytes.Count(src[:min(int(syntax.Offset), len(src))], []byte("\n")), err)
	case errors.As(err, &wrongType):
		return fmt.Errorf("%s: %s: a JSON %s cannot stand here", name, cmp.Or(wrongType.Field, "the job"), wrongType.Value)
	}
	return fmt.Errorf("cannot read the job %s: %w", name, err)
}

func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxInput))
}

func (in *jobInput) parse(name string, src []byte) (*model.Job, *jobspec.Places, error) {
	opts := jobspec.Options{Variables: make(map[string]string), Env: os.Environ(), Loose: in.loose}
	for _, kv := range in.vars {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			return nil, nil, fmt.Errorf("-var %q is not NAME=VALUE", kv)
		}
		opts.Variables[k] = v
	}
	for _, file := range in.varFiles {
		b, err := readBounded(file)
		if err != nil {
			return nil, nil, fmt.Errorf("cannot read the variables: %w", err)
		}
		opts.VarFiles = append(opts.VarFiles, jobspec.File{Name: file, Content: b})
	}
	dir := "."
	if name != "-" {
		dir = filepath.Dir(name)
	}
	opts.Files = userFiles{dir}
	return jobspec.ParsePlaces(name, src, opts)
}

// userFiles are the files of whoever runs the command, by whatever path: they are
// read with their own rights.
type userFiles struct{ dir string }

func (u userFiles) Open(name string) (fs.File, error) {
	if !filepath.IsAbs(name) {
		name = filepath.Join(u.dir, name)
	}
	return os.Open(name)
}
