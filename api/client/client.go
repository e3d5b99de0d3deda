// Package client is the small typed client for what the official Nomad client
// has no words for: questions to all regions, and the regions themselves.
//
// It makes one HTTP request a call and holds no connection of its own; a Client
// may be used by any number of goroutines.
package client

import (
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
	req, err := http.NewRequestWithContext(ctx, verb, strings.TrimSuffix(c.Address, "/")+path+"?"+query.Encode(), nil)
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
