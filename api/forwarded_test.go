package api_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"atoll/model"
)

// Whoever reads at the door of another region reads the same bytes.
func TestAForwardedReadIsTheLocalOne(t *testing.T) {
	us, eu := twoRegions(t)
	eu.addNode()
	eu.register(aJob("web", object{"Meta": object{"k": "<&>" + strings.Repeat("v", 2000)}}))
	var rows []model.AllocStub
	wait(t, "an allocation", func() error {
		if rows, _ = get[[]model.AllocStub](eu, "/v1/job/web/allocations"); len(rows) == 0 {
			return errors.New("there is none")
		}
		return nil
	})
	evals, _ := get[[]model.EvaluationStub](eu, "/v1/job/web/evaluations")
	deployments, _ := get[[]model.Deployment](eu, "/v1/job/web/deployments")
	if len(evals) == 0 || len(deployments) == 0 {
		t.Fatal(evals, deployments)
	}
	for _, path := range []string{
		"/v1/job/web", "/v1/job/none", "/v1/job/web/summary", "/v1/job/web/scale", "/v1/job/web/versions", "/v1/job/web/allocations", "/v1/job/none/allocations",
		"/v1/job/web/evaluations", "/v1/job/web/deployments", "/v1/job/web/deployment", "/v1/jobs", "/v1/jobs?filter=ID+%3D%3D+%22no%22", "/v1/jobs?index=1",
		"/v1/nodes", "/v1/allocations", "/v1/allocation/" + rows[0].ID, "/v1/evaluations", "/v1/evaluation/" + evals[0].ID, "/v1/evaluation/" + evals[0].ID + "/allocations",
		"/v1/deployments", "/v1/deployment/" + deployments[0].ID, "/v1/deployment/allocations/" + deployments[0].ID, "/v1/deployment/none", "/v1/scaling/policies", "/v1/scaling/policy/none",
	} {
		for _, form := range []string{"", "pretty", "gzip"} {
			at, header := path, []string(nil)
			u, err := url.Parse(path)
			if err != nil {
				t.Fatal(err)
			}
			q := u.Query()
			q.Set("region", "eu")
			switch form {
			case "pretty":
				q.Set("pretty", "")
			case "gzip":
				header = []string{"Accept-Encoding", "gzip"}
			}
			u.RawQuery = q.Encode()
			at = u.String()
			wait(t, at, func() error {
				far, near := us.do("GET", at, nil, header...), eu.do("GET", at, nil, header...)
				if far.status != near.status || far.body != near.body || far.index() != near.index() || far.Get("Content-Encoding") != near.Get("Content-Encoding") || far.Get("Content-Type") != near.Get("Content-Type") {
					// The state may have changed in between, for a while.
					return errors.New("read at the other region's door it is\n" + far.body + "\nand at its own\n" + near.body)
				}
				return nil
			})
		}
	}
}
