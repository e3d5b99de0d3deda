package method

import (
	"encoding/json"
)

// Answer is a read's reply of which one part is all that HTTP answers with, beside
// the headers that Meta makes.
type Answer interface {
	About() *Meta
	// Body is that part: nil when there is no such thing.
	Body() any
}

// About is what a reply says of itself.
func (m *Meta) About() *Meta { return m }

// Rendered is an answer whose body is in its Meta's JSON, and nothing else.
type Rendered struct{ Meta }

// Render returns an answer as its door would encode it, so that the door has but to
// pass it on; nil for one without a body.
func Render(a Answer) *Rendered {
	body := a.Body()
	if body == nil {
		return nil
	}
	out := &Rendered{*a.About()}
	encode := func() []byte { b, _ := json.Marshal(body); return b }
	if out.Encoding != nil {
		out.JSON = string(out.Encoding.Plain(encode))
	} else {
		out.JSON = string(encode())
	}
	if out.JSON == "" {
		return nil
	}
	return out
}

func (r *JobResponse) Body() any            { return object(r.Job) }
func (r *JobListResponse) Body() any        { return rows(r.Jobs) }
func (r *JobSummaryResponse) Body() any     { return object(r.Summary) }
func (r *JobScaleStatusResponse) Body() any { return object(r.Status) }
func (r *AllocListResponse) Body() any      { return rows(r.Allocs) }
func (r *EvalListResponse) Body() any       { return rows(r.Evals) }
func (r *DeploymentResponse) Body() any     { return object(r.Deployment) }
func (r *DeploymentListResponse) Body() any { return rows(r.Deployments) }
func (r *NodeListResponse) Body() any       { return rows(r.Nodes) }
func (r *ScalingListResponse) Body() any    { return rows(r.Policies) }
func (r *ScalingResponse) Body() any        { return object(r.Policy) }

func object[T any](v *T) any {
	if v == nil {
		return nil
	}
	return v
}

// rows are never null to those who read JSON.
func rows[T any](list []T) any {
	if list == nil {
		return []T{}
	}
	return list
}

var _ = []Answer{
	(*JobResponse)(nil), (*JobListResponse)(nil), (*JobSummaryResponse)(nil), (*JobScaleStatusResponse)(nil), (*AllocListResponse)(nil), (*EvalListResponse)(nil),
	(*DeploymentResponse)(nil), (*DeploymentListResponse)(nil), (*NodeListResponse)(nil), (*ScalingListResponse)(nil), (*ScalingResponse)(nil),
}
