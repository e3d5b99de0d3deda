package model

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/snappy"
)

// ParameterizedJobConfig makes a job one that never runs itself: each dispatch
// makes a child of it, with a payload and metadata of its own.
type ParameterizedJobConfig struct {
	// Payload is one of the three below; optional when not given.
	Payload string
	// MetaRequired and MetaOptional are the keys that a dispatch must and may
	// give.
	MetaRequired []string
	MetaOptional []string
}

// Whether a dispatch has a payload.
const (
	DispatchPayloadOptional  = "optional"
	DispatchPayloadRequired  = "required"
	DispatchPayloadForbidden = "forbidden"
)

// DispatchPayloadConfig asks for the payload as a file, whose path is within the
// task's local directory.
type DispatchPayloadConfig struct{ File string }

const (
	// DispatchLaunchSuffix begins what follows the parent's id in that of a
	// child.
	DispatchLaunchSuffix = "/dispatch-"
	// MaxDispatchPayload bounds a payload, in bytes.
	MaxDispatchPayload = 16 << 10
)

// Dispatch is what a child of a parameterized job is made with.
type Dispatch struct {
	ChildID string
	// Payload is compressed, nil when there is none.
	Payload []byte
	Meta    map[string]string
	// Priority is the child's; 0 is the parent's.
	Priority int
	// Token is what a dispatch that is sent again can be known by.
	Token string
	// Time is in Unix nanoseconds.
	Time int64
}

// IsParameterized reports whether the job is one to be dispatched, not a child.
func (j *Job) IsParameterized() bool { return j.ParameterizedJob != nil && !j.Dispatched }

// DispatchedID makes the id of a child, with a prefix that its caller may choose.
// r nil means crypto/rand.
func DispatchedID(parent, prefix string, now time.Time, r io.Reader) string {
	u := NewUUID(r)
	if prefix != "" {
		prefix += "-"
	}
	return fmt.Sprintf("%s%s%s%d-%s", parent, DispatchLaunchSuffix, prefix, now.Unix(), hex.EncodeToString(u[:4]))
}

// Dispatch is the child of a parameterized job that a dispatch makes, or why it
// cannot.
func (j *Job) Dispatch(d *Dispatch) (*Job, error) {
	if err := j.checkDispatch(d); err != nil {
		return nil, err
	}
	child := j.child(d.ChildID, d.Time)
	child.Dispatched, child.DispatchIdempotencyToken, child.Payload = true, d.Token, d.Payload
	child.Priority = cmp.Or(d.Priority, j.Priority)
	child.Meta = maps.Clone(j.Meta)
	if child.Meta == nil {
		child.Meta = make(map[string]string, len(d.Meta))
	}
	maps.Copy(child.Meta, d.Meta)
	return child, nil
}

func (j *Job) checkDispatch(d *Dispatch) error {
	refuse := func(field, format string, args ...any) error {
		return Invalidf(field, "cannot dispatch job %q: %s", j.ID, fmt.Sprintf(format, args...))
	}
	switch {
	case !j.IsParameterized():
		return refuse("JobID", "it is not parameterized")
	case j.Stop:
		return Errorf(KindConflict, "cannot dispatch job %q: it is stopped", j.ID)
	case d.Priority < 0 || d.Priority > JobMaxPriority:
		return refuse("Priority", "%d is not from %d to %d", d.Priority, JobMinPriority, JobMaxPriority)
	case j.ParameterizedJob.Payload == DispatchPayloadRequired && len(d.Payload) == 0:
		return refuse("Payload", "it requires a payload, and there is none")
	case j.ParameterizedJob.Payload == DispatchPayloadForbidden && len(d.Payload) > 0:
		return refuse("Payload", "it forbids a payload, and there is one")
	}
	f := &faults{}
	checkID(f, "IdPrefixTemplate", d.ChildID)
	checkMeta(f, "Meta", d.Meta)
	if len(f.list) > 0 {
		return JoinFaults(fmt.Sprintf("cannot dispatch job %q: ", j.ID), f.list)
	}
	var unknown, missing []string
	for _, key := range slices.Sorted(maps.Keys(d.Meta)) {
		if !slices.Contains(j.ParameterizedJob.MetaRequired, key) && !slices.Contains(j.ParameterizedJob.MetaOptional, key) {
			unknown = append(unknown, key)
		}
	}
	for _, key := range j.ParameterizedJob.MetaRequired {
		if _, given := d.Meta[key]; !given {
			missing = append(missing, key)
		}
	}
	switch {
	case len(unknown) > 0:
		return refuse("Meta", "it takes no metadata %s; its keys are in meta_required and meta_optional", strings.Join(quoted(unknown), ", "))
	case len(missing) > 0:
		return refuse("Meta", "it requires the metadata %s", strings.Join(quoted(missing), ", "))
	}
	return nil
}

func quoted(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = fmt.Sprintf("%.64q", w)
	}
	return out
}

func (p *ParameterizedJobConfig) canonicalize() {
	p.Payload = cmp.Or(p.Payload, DispatchPayloadOptional)
}

func (j *Job) checkParameterized(f *faults) {
	p := j.ParameterizedJob
	if p == nil {
		return
	}
	j.checkParent(f, "parameterized")
	switch p.Payload {
	case DispatchPayloadOptional, DispatchPayloadRequired, DispatchPayloadForbidden:
	default:
		f.add("job.parameterized.payload", "%q is none of optional, required, forbidden", p.Payload)
	}
	for _, key := range p.MetaOptional {
		if slices.Contains(p.MetaRequired, key) {
			f.add("job.parameterized.meta_optional", "%q is in meta_required too; it is one or the other", key)
		}
	}
}

func (d *DispatchPayloadConfig) validate(f *faults, at string) {
	switch {
	case d == nil:
	case d.File == "":
		f.add(at+".file", "it is empty; name the file for the payload")
	case !filepath.IsLocal(d.File):
		f.add(at+".file", "%q is not within the task's local directory; write a path without \"..\" that does not begin with a slash", d.File)
	}
}

// CompressPayload checks a payload's size, and makes it what jobs hold.
func CompressPayload(payload []byte) ([]byte, error) {
	switch {
	case len(payload) > MaxDispatchPayload:
		return nil, &Error{Kind: KindTooLarge, Field: "Payload", Message: fmt.Sprintf("the payload of %d bytes is over the limit of %d", len(payload), MaxDispatchPayload)}
	case len(payload) == 0:
		return nil, nil
	}
	return snappy.Encode(nil, payload), nil
}

// DispatchedPayload is the payload that the job was dispatched with, nil when
// there is none.
func (j *Job) DispatchedPayload() ([]byte, error) {
	if len(j.Payload) == 0 {
		return nil, nil
	}
	size, err := snappy.DecodedLen(j.Payload)
	if err == nil && size > MaxDispatchPayload {
		err = fmt.Errorf("its %d bytes are over the limit of %d", size, MaxDispatchPayload)
	}
	var payload []byte
	if err == nil {
		payload, err = snappy.Decode(nil, j.Payload)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the payload of job %q: %w", j.ID, err)
	}
	return payload, nil
}
