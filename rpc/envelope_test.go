package rpc

import (
	"context"
	"reflect"
	"testing"
	"time"

	"atoll/internal/wire"
	"atoll/model/method"
)

// Earlier versions send every field, empty or not, and read what is absent as empty;
// later ones' fields are passed over.
func TestAnEnvelopeTravelsWithoutWhatIsEmpty(t *testing.T) {
	read := Envelope{Method: "Job.Get", Region: "eu", Timeout: time.Second, Path: []string{"us"}, Hops: 1}
	full := Envelope{
		Method: "Job.Register", Region: "eu", Cell: "c", Timeout: time.Second, RequestID: "r", Path: []string{"us", "ap"}, Hops: 2,
		AllowStale: true, Forwarded: true, NodeID: "n", Quiet: time.Second, JSON: true, Reuse: true,
	}
	for _, env := range []Envelope{{}, read, full} {
		b, err := encodeEnvelope(&env)
		if err != nil {
			t.Fatal(err)
		}
		got := new(Envelope)
		if err := wire.Decode(b, got); err != nil || !reflect.DeepEqual(*got, env) {
			t.Errorf("%+v became %+v, %v", env, got, err)
		}
		if env.Method == read.Method && len(b) > 64 {
			t.Errorf("a read's envelope takes %d bytes", len(b))
		}
	}
	all := map[string]any{
		"Method": "Job.Get", "Region": "eu", "Cell": "", "Timeout": int64(time.Second), "RequestID": "", "Path": []string{"us"}, "Hops": 1,
		"AllowStale": false, "Forwarded": false, "NodeID": "", "Quiet": int64(0), "OfALaterVersion": true,
	}
	b, err := wire.Encode(all)
	got := new(Envelope)
	if err == nil {
		err = wire.Receive(b, got)
	}
	if err != nil || !reflect.DeepEqual(*got, read) {
		t.Errorf("another version's: %+v, %v", got, err)
	}
}

func TestOnlyWritesAreGivenARequestID(t *testing.T) {
	for _, spec := range []method.Spec{echo.Spec, put.Spec} {
		env, _, cancel := To{}.envelope(context.Background(), spec, time.Second)
		cancel()
		if (env.RequestID != "") != spec.Write {
			t.Errorf("%s has the request id %q", spec.Name, env.RequestID)
		}
	}
	env, _, cancel := To{RequestID: "r"}.envelope(context.Background(), echo.Spec, time.Second)
	cancel()
	if env.RequestID != "r" {
		t.Errorf("the caller's own id became %q", env.RequestID)
	}
}
