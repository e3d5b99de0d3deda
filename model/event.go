package model

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Topics of events, spelled as Nomad's. TopicAll stands for all of them, and as
// a key for every key.
const (
	TopicJob        = "Job"
	TopicEvaluation = "Evaluation"
	TopicAllocation = "Allocation"
	TopicDeployment = "Deployment"
	TopicNode       = "Node"
	TopicAll        = "*"
)

// Types of events, spelled as Nomad's. The type says what was asked of the
// region, whatever changed by it: a job's registration has an event about the
// job and one about its evaluation, both of the type EventJobRegistered.
const (
	EventJobRegistered         = "JobRegistered"
	EventJobDeregistered       = "JobDeregistered"
	EventJobBatchDeregistered  = "JobBatchDeregistered"
	EventEvaluationUpdated     = "EvaluationUpdated"
	EventAllocationUpdated     = "AllocationUpdated"
	EventAllocationDesired     = "AllocationUpdateDesiredStatus"
	EventDeploymentStatus      = "DeploymentStatusUpdate"
	EventDeploymentPromotion   = "DeploymentPromotion"
	EventDeploymentAllocHealth = "DeploymentAllocHealth"
	EventPlanResult            = "PlanResult"
	EventNodeRegistration      = "NodeRegistration"
	EventNodeDeregistration    = "NodeDeregistration"
	EventNodeEligibility       = "NodeEligibility"
	EventNodeDrain             = "NodeDrain"
	EventNode                  = "NodeStreamEvent"
)

// Event tells of one object that a log entry changed.
type Event struct {
	Topic, Type string
	// Key is the object's id, FilterKeys what else it is found by: the job and
	// the deployment that it belongs to.
	Key        string
	Namespace  string
	FilterKeys []string
	// Index is the entry's.
	Index   uint64
	Payload EventPayload
}

// EventPayload is the object as the change left it, under the name of its
// topic. Allocations are without their job, which has events of its own.
type EventPayload struct {
	Job *Job `json:",omitempty"`
	// Deleted says that the job was forgotten, not only stopped.
	Deleted    bool        `json:",omitempty"`
	Evaluation *Evaluation `json:",omitempty"`
	Allocation *Allocation `json:",omitempty"`
	Deployment *Deployment `json:",omitempty"`
	Node       *Node       `json:",omitempty"`
}

// EventGap says that a reader asked for events from an index on, and that those
// up to another may be missing: the server has forgotten them. When To is lower than
// From, the index was of another state, such as that of a cell which is gone, and
// what follows is whatever the new one has after To.
type EventGap struct{ From, To uint64 }

// RegionEvents is what a stream of the events of all regions tells of one of them:
// events of an index, not always all of them; or, with a Freshness, that the region
// is there, or is not.
type RegionEvents struct {
	Region string `json:",omitempty"`
	// Index is that of the events. Of a region that is there it is the one after
	// which its server has all.
	Index  uint64   `json:",omitempty"`
	Events []*Event `json:",omitempty"`
	// State names the state that the indexes are of, of a region that is there: to
	// go on from one of them is to say it.
	State string `json:",omitempty"`
	// Gap is set when events before those that follow may be missing.
	Gap       *EventGap `json:",omitempty"`
	Freshness Freshness `json:",omitempty"`
	// Age is since an unreachable region was last heard, negative when it never
	// was, and Error why it is.
	Age   time.Duration `json:",omitempty"`
	Error string        `json:",omitempty"`
}

// EventFilter says which events a reader wants.
type EventFilter struct {
	// Topics leads from each topic wanted, or TopicAll, to the keys wanted of
	// it. What is said of a topic counts before what is said of all.
	Topics map[string][]string
	// Namespace is "" for the default one, AllNamespaces for all. Nodes are in
	// none, and always wanted.
	Namespace string
}

// otherTopics are Nomad's of which this version has no events.
var otherTopics = []string{
	"NodePool", "Service", "Operator", "Variable", "HostVolume", "CSIVolume", "CSIPlugin",
	"ACLToken", "ACLPolicy", "ACLRole", "ACLAuthMethod", "ACLBindingRule",
}

// ParseTopics reads topics in the form "Topic" or "Topic:key". None means all.
func ParseTopics(topics []string) (map[string][]string, error) {
	if len(topics) == 0 {
		topics = []string{TopicAll}
	}
	out := make(map[string][]string)
	for _, t := range topics {
		topic, key, _ := strings.Cut(t, ":")
		switch {
		case slices.Contains([]string{TopicAll, TopicJob, TopicEvaluation, TopicAllocation, TopicDeployment, TopicNode}, topic):
		case slices.Contains(otherTopics, topic):
			return nil, &Error{Kind: KindUnsupported, Field: "topic", Message: "this version of Atoll has no events about the topic \"" + topic + "\""}
		default:
			return nil, Invalidf("topic", "topic %q is none; write one such as Job, or Job:ID, or *", t)
		}
		out[topic] = append(out[topic], cmp.Or(key, TopicAll))
	}
	return out, nil
}

// Keys are the keys wanted of a topic, none when it is not wanted.
func (f *EventFilter) Keys(topic string) []string {
	if keys, ok := f.Topics[topic]; ok {
		return keys
	}
	return f.Topics[TopicAll]
}

// Wants reports whether an event about an object is wanted. An object of no
// namespace has the namespace "".
func (f *EventFilter) Wants(topic, namespace, key string, others ...string) bool {
	keys := f.Keys(topic)
	if want := cmp.Or(f.Namespace, DefaultNamespace); namespace != "" && want != AllNamespaces && want != namespace {
		return false
	}
	return slices.ContainsFunc(keys, func(want string) bool {
		return want == TopicAll || want == key || slices.Contains(others, want)
	})
}
