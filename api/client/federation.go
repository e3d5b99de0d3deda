package client

import (
	"context"
	"net/url"
	"strconv"
	"strings"
	"time"

	"atoll/model"
)

// Selection says which rows of which regions a question is about. Its zero value
// asks for the first page of all of the default namespace.
type Selection struct {
	// Regions are those wanted, none for all.
	Regions                   []string
	Namespace, Prefix, Filter string
	// PerPage is how many rows to answer with, 0 for the agent's default, and
	// NextToken that of an earlier page.
	PerPage   int
	NextToken string
	// Fresh asks each region itself instead of what is known of it already, for
	// as long as Wait, or as the agent will when that is 0.
	Fresh bool
	Wait  time.Duration
}

func (s *Selection) query() url.Values {
	q := url.Values{}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	set("region", strings.Join(s.Regions, ","))
	set("namespace", s.Namespace)
	set("prefix", s.Prefix)
	set("filter", s.Filter)
	set("next_token", s.NextToken)
	if s.PerPage > 0 {
		q.Set("per_page", strconv.Itoa(s.PerPage))
	}
	if s.Fresh {
		q.Set("fresh", "true")
	}
	if s.Wait > 0 {
		q.Set("wait", s.Wait.String())
	}
	return q
}

// Page is what every page of rows has beside them: what each region's are worth,
// and the token of the next, "" after the last.
type Page struct {
	Regions   []model.RegionAnswer
	NextToken string
}

// Regions returns how each region is, by name.
func (c *Client) Regions(ctx context.Context, sel Selection) ([]*model.RegionOverview, error) {
	var out struct{ Regions []*model.RegionOverview }
	_, err := c.get(ctx, "/v1/federation/regions", sel.query(), &out)
	return out.Regions, err
}

// FederationJobs returns a page of the jobs of many regions, in the order of
// namespace, id and region.
func (c *Client) FederationJobs(ctx context.Context, sel Selection) ([]*model.JobRow, *Page, error) {
	var out struct {
		Page
		Jobs []*model.JobRow
	}
	_, err := c.get(ctx, "/v1/federation/jobs", sel.query(), &out)
	return out.Jobs, &out.Page, err
}

// FederationJob returns the shares of a job, one a region that has it.
func (c *Client) FederationJob(ctx context.Context, id string, sel Selection) ([]*model.JobRow, *Page, error) {
	var out struct {
		Page
		Jobs []*model.JobRow
	}
	_, err := c.get(ctx, "/v1/federation/job/"+url.PathEscape(id), sel.query(), &out)
	return out.Jobs, &out.Page, err
}

// FederationNodes returns a page of the nodes of many regions.
func (c *Client) FederationNodes(ctx context.Context, sel Selection) ([]*model.NodeRow, *Page, error) {
	var out struct {
		Page
		Nodes []*model.NodeRow
	}
	_, err := c.get(ctx, "/v1/federation/nodes", sel.query(), &out)
	return out.Nodes, &out.Page, err
}

// FederationDeployments returns a page of the deployments of many regions.
func (c *Client) FederationDeployments(ctx context.Context, sel Selection) ([]*model.DeploymentRow, *Page, error) {
	var out struct {
		Page
		Deployments []*model.DeploymentRow
	}
	_, err := c.get(ctx, "/v1/federation/deployments", sel.query(), &out)
	return out.Deployments, &out.Page, err
}
