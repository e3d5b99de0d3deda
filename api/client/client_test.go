package client

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"atoll/model"
)

func TestAnswersAreReadAndErrorsToldAsTheAgentSaidThem(t *testing.T) {
	body, header, status := "[]", "", http.StatusOK
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/federation/regions" && r.URL.Query().Get("region") != "*" {
			t.Errorf("asked for %s", r.URL)
		}
		w.Header().Set("X-Atoll-Regions", header)
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	defer agent.Close()
	c := &Client{Address: agent.URL + "/", HTTP: agent.Client()}

	body, header = `[{"ID": "a", "Region": "eu"}]`, "eu=live;index=7, us=unreachable;age=3.0s"
	rows, answers, err := c.Jobs(t.Context(), "", "a")
	if err != nil || len(rows) != 1 || rows[0].Region != "eu" || len(answers) != 2 || answers[0].Index != 7 || answers[1].Freshness != model.Unreachable || answers[1].Age != 3*time.Second {
		t.Errorf("%+v %+v %v", rows, answers, err)
	}
	header = "broken"
	if _, _, err := c.Nodes(t.Context(), ""); err == nil {
		t.Error("a header that says nothing is taken for an answer")
	}
	body, header, status = "region \"eu\" has no leader at the moment", "", http.StatusInternalServerError
	if _, err := c.Regions(t.Context(), Selection{}); err == nil || err.Error() != body+" (500)" {
		t.Errorf("%v", err)
	}
	body, status = "<html>", http.StatusOK
	if _, err := c.Regions(t.Context(), Selection{}); err == nil || !strings.Contains(err.Error(), "cannot read the answer of the agent at "+agent.URL) {
		t.Errorf("%v", err)
	}
	for _, address := range []string{"http://127.0.0.1:1", "http://a b", "nonsense"} {
		if _, err := (&Client{Address: address}).Regions(context.Background(), Selection{}); err == nil || !strings.Contains(err.Error(), address) {
			t.Errorf("%s: %v", address, err)
		}
	}
}
