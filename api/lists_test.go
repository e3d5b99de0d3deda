package api

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"atoll/model"
	"atoll/model/method"
	"atoll/rpc"
)

// here serves every call in this process, whatever its region.
type here struct{}

func (here) Region() string { return "us" }
func (here) Route(context.Context, *rpc.Envelope, method.Spec) (rpc.Decision, error) {
	return rpc.Decision{Local: true}, nil
}
func (here) Report(string, string, error, time.Duration) {}
func (here) Leads(string, string)                        {}
func (here) Unreachable(region string, cause error) *model.Error {
	return model.NoAnswer(region, cause, time.Time{}, time.Now())
}

// What one region tells wrongly is no reason to answer for none.
func TestAListThatCannotBeUsedIsItsRegionsAlone(t *testing.T) {
	calls := rpc.NewServer(rpc.ServerConfig{Router: here{}})
	rpc.Handle(calls, method.RegionList, func(context.Context, *rpc.Inbound, *method.Empty) (*method.RegionsResponse, error) {
		return &method.RegionsResponse{Regions: []model.RegionStatus{{Name: "eu"}, {Name: "us"}}}, nil
	})
	rpc.Handle(calls, method.JobList, func(_ context.Context, in *rpc.Inbound, _ *method.ListRequest) (*method.JobListResponse, error) {
		if in.Envelope.Region == "eu" {
			return &method.JobListResponse{Jobs: []*model.JobStub{{ID: "there"}, nil}}, nil
		}
		return &method.JobListResponse{Jobs: []*model.JobStub{{ID: "here"}}}, nil
	})
	known := []*model.JobRow{nil}
	rpc.Handle(calls, method.FederationJobs, func(context.Context, *rpc.Inbound, *method.FederationRequest) (*method.FederationPage[*model.JobRow], error) {
		return &method.FederationPage[*model.JobRow]{Rows: known, Regions: []model.RegionAnswer{{Region: "eu", Freshness: model.Stale, Age: time.Second, Index: 7}}}, nil
	})
	a := New(Config{Region: "us", Caller: calls})
	ask := func() (string, string) {
		w := httptest.NewRecorder()
		a.ServeHTTP(w, httptest.NewRequest("GET", "/v1/jobs?region=*", nil))
		return w.Body.String(), w.Header().Get(regionsHeader)
	}
	body, worth := ask()
	if !strings.Contains(body, `"here"`) || strings.Contains(body, `"there"`) || worth != "eu=unreachable;age=0.0s, us=live;index=0" {
		t.Errorf("%s of %s", body, worth)
	}
	known = []*model.JobRow{{ID: "known", Region: "eu"}}
	if body, worth = ask(); !strings.Contains(body, `"known"`) || worth != "eu=stale;age=1.0s;index=7, us=live;index=0" {
		t.Errorf("%s of %s", body, worth)
	}
}
