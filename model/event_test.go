package model

import (
	"reflect"
	"testing"
)

func TestTopicsAreReadAsClientsWriteThem(t *testing.T) {
	for _, c := range []struct {
		given []string
		want  map[string][]string
		kind  Kind
	}{
		{nil, map[string][]string{"*": {"*"}}, 0},
		{[]string{"*:*"}, map[string][]string{"*": {"*"}}, 0},
		{[]string{"Job:redis", "Job:web", "Node"}, map[string][]string{"Job": {"redis", "web"}, "Node": {"*"}}, 0},
		{[]string{"Job:a:b", "Evaluation:"}, map[string][]string{"Job": {"a:b"}, "Evaluation": {"*"}}, 0},
		{[]string{"Jobs"}, nil, KindInvalid},
		{[]string{"job"}, nil, KindInvalid},
		{[]string{"Node", "Service:web"}, nil, KindUnsupported},
	} {
		got, err := ParseTopics(c.given)
		if c.want == nil {
			if KindOf(err) != c.kind || err == nil {
				t.Errorf("%q: error %v, want one of kind %s", c.given, err, c.kind)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %v, %v; want %v", c.given, got, err, c.want)
		}
	}
}

func TestAFilterWantsByTopicKeyAndNamespace(t *testing.T) {
	for _, c := range []struct {
		topics    []string
		namespace string
		want      string
	}{
		{[]string{"*"}, "", "job node alloc"},
		{[]string{"*"}, "other", "node elsewhere"},
		{[]string{"*"}, "*", "job node alloc elsewhere"},
		{[]string{"Job"}, "*", "job elsewhere"},
		{[]string{"*:web"}, "", "job alloc"},
		{[]string{"Allocation:d1"}, "", "alloc"},
		{[]string{"Job:nothing", "*"}, "", "node alloc"},
		{[]string{"Evaluation"}, "*", ""},
	} {
		topics, err := ParseTopics(c.topics)
		if err != nil {
			t.Fatal(err)
		}
		f := &EventFilter{Topics: topics, Namespace: c.namespace}
		got := ""
		for _, o := range []struct {
			name string
			want bool
		}{
			{"job", f.Wants(TopicJob, "default", "web")},
			{"node", f.Wants(TopicNode, "", "n1")},
			{"alloc", f.Wants(TopicAllocation, "default", "a1", "web", "d1")},
			{"elsewhere", f.Wants(TopicJob, "other", "db")},
		} {
			if o.want {
				if got != "" {
					got += " "
				}
				got += o.name
			}
		}
		if got != c.want {
			t.Errorf("%q in namespace %q wants %q, not %q", c.topics, c.namespace, got, c.want)
		}
	}
}
