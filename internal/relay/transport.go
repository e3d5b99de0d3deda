package relay

import (
	"io"
	"net/http"
)

// Transport is a client's way to a server over a bad network.
type Transport struct {
	Base http.RoundTripper
	// LoseReply is asked of each answer that has come: true loses it.
	LoseReply func() bool
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.Base.RoundTrip(r)
	if err == nil && t.LoseReply() {
		_ = resp.Body.Close()
		return nil, io.ErrUnexpectedEOF
	}
	return resp, err
}
