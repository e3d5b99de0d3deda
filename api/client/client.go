// Package client is the small typed client for what the official Nomad client
// has no words for: questions to all regions, and the regions themselves.
//
// It makes one HTTP request a call and holds no connection of its own; a Client
// may be used by any number of goroutines.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"atoll/federation"
	"atoll/model"
	"atoll/model/method"
)

// maxAnswer bounds an answer's body in bytes.
const maxAnswer = 256 << 20

// Client speaks to one agent.
type Client struct {
	// Address is the agent's, such as "http://127.0.0.1:4646".
	Address string
	// HTTP makes the requests; nil means http.DefaultClient.
	HTTP *http.Client
}

// Accept makes a cell the one that a region is, for the servers of the agent's
// region, or of the region via unless that is "". It returns the servers that
// took it, and why others did not.
func (c *Client) Accept(ctx context.Context, via, region, cellID string) (*method.RegionAcceptResponse, error) {
	out := new(method.RegionAcceptResponse)
	query := url.Values{"cell": {cellID}}
	if via != "" {
		query.Set("region", via)
	}
	_, err := c.do(ctx, http.MethodPut, "/v1/federation/region/"+url.PathEscape(region)+"/accept", query, out)
	return out, err
}

// Jobs lists the jobs of every region that begin with prefix, and says what each
// region's rows are worth. An empty namespace is the default one.
func (c *Client) Jobs(ctx context.Context, namespace, prefix string) ([]*model.JobStub, []model.RegionAnswer, error) {
	var rows []*model.JobStub
	answers, err := c.all(ctx, "/v1/jobs", url.Values{"namespace": {namespace}, "prefix": {prefix}}, &rows)
	return rows, answers, err
}

// Nodes lists the nodes of every region, and says what each region's rows are
// worth.
func (c *Client) Nodes(ctx context.Context, prefix string) ([]*model.NodeStub, []model.RegionAnswer, error) {
	var rows []*model.NodeStub
	answers, err := c.all(ctx, "/v1/nodes", url.Values{"prefix": {prefix}}, &rows)
	return rows, answers, err
}

// Eval is an evaluation of some region.
type Eval struct {
	model.Evaluation
	Region string
}

// Evals lists the evaluations of every region that are of a job and have a
// status, both unless "", and pass a filter; and says what each region's rows are
// worth.
func (c *Client) Evals(ctx context.Context, namespace, job, status, filter string) ([]*Eval, []model.RegionAnswer, error) {
	var rows []*Eval
	answers, err := c.all(ctx, "/v1/evaluations", url.Values{"namespace": {namespace}, "job": {job}, "status": {status}, "filter": {filter}}, &rows)
	return rows, answers, err
}

// Registered is the answer to a submit.
type Registered = method.JobRegisterResponse

// RegisterOptions are those of a submit. EnforceIndex refuses it unless the job's
// JobModifyIndex is ModifyIndex.
type RegisterOptions struct {
	// Region is where the request goes, "" for the agent's or the job's.
	Region       string
	EnforceIndex bool
	ModifyIndex  uint64
	// Token makes the submit one that may be sent again.
	Token string
}

// Register submits a job with all that it says: the official client's types lose
// what they do not know.
func (c *Client) Register(ctx context.Context, job *model.Job, opts RegisterOptions) (*Registered, error) {
	query := url.Values{}
	for name, value := range map[string]string{"region": opts.Region, "namespace": job.Namespace, "idempotency_token": opts.Token} {
		if value != "" {
			query.Set(name, value)
		}
	}
	out := new(Registered)
	_, err := c.send(ctx, http.MethodPut, "/v1/jobs", query, map[string]any{
		"Job": job, "EnforceIndex": opts.EnforceIndex, "JobModifyIndex": opts.ModifyIndex,
	}, out)
	return out, err
}

// Plan asks what submitting a multi-region job would do in each of its regions;
// without, unless "", is one whose loss the others are to make up for.
func (c *Client) Plan(ctx context.Context, job *model.Job, via, without string, diff bool) ([]method.RegionPlan, error) {
	query := url.Values{}
	for name, value := range map[string]string{"region": via, "namespace": job.Namespace, "without": without} {
		if value != "" {
			query.Set(name, value)
		}
	}
	var out struct{ Regions []method.RegionPlan }
	_, err := c.send(ctx, http.MethodPut, "/v1/job/"+url.PathEscape(job.ID)+"/plan", query, map[string]any{"Job": job, "Diff": diff}, &out)
	return out.Regions, err
}

// Rollout returns how far the regions of a multi-region job are, as the region
// via knows, unless that is "": then any that does.
func (c *Client) Rollout(ctx context.Context, namespace, job, via string) (*model.Rollout, error) {
	query := url.Values{"namespace": {namespace}}
	if via != "" {
		query.Set("region", via)
	}
	out := new(model.Rollout)
	_, err := c.get(ctx, "/v1/federation/rollout/"+url.PathEscape(job), query, out)
	return out, err
}

func (c *Client) all(ctx context.Context, path string, query url.Values, rows any) ([]model.RegionAnswer, error) {
	query.Set("region", model.AllRegions)
	h, err := c.get(ctx, path, query, rows)
	if err != nil {
		return nil, err
	}
	return federation.ParseHeader(h.Get("X-Atoll-Regions"))
}

func (c *Client) get(ctx context.Context, path string, query url.Values, out any) (http.Header, error) {
	return c.do(ctx, http.MethodGet, path, query, out)
}

func (c *Client) do(ctx context.Context, verb, path string, query url.Values, out any) (http.Header, error) {
	return c.send(ctx, verb, path, query, nil, out)
}

func (c *Client) send(ctx context.Context, verb, path string, query url.Values, in, out any) (http.Header, error) {
	var sent io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("cannot send the request: %w", err)
		}
		sent = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, verb, strings.TrimSuffix(c.Address, "/")+path+"?"+query.Encode(), sent)
	if err != nil {
		return nil, fmt.Errorf("cannot use the address %q: %w", c.Address, err)
	}
	hc := c.HTTP
	if hc == nil {
		hc = http.DefaultClient
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, fmt.Errorf("cannot ask the agent at %s: %w", c.Address, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("cannot read the answer of the agent at %s: %w", c.Address, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s (%d)", strings.TrimSpace(string(body)), resp.StatusCode)
	}
	if err := json.Unmarshal(body, out); err != nil {
		return nil, fmt.Errorf("cannot read the answer of the agent at %s: %w", c.Address, err)
	}
	return resp.Header, nil
}
