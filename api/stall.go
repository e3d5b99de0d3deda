package api

import (
	"net/http"
	"time"
)

const (
	// stallTime is how long a client may take nothing of an answer: what waits
	// for it is kept in memory meanwhile.
	stallTime = 30 * time.Second
	// stallPiece is what has to go within that, so that a slow client is not
	// taken for one that stalls.
	stallPiece = 64 << 10
)

// unstalled breaks an answer off once its client has taken nothing for stallTime.
type unstalled struct {
	http.ResponseWriter
	control *http.ResponseController
}

func newUnstalled(w http.ResponseWriter) *unstalled {
	u := &unstalled{w, http.NewResponseController(w)}
	// Of the answer before, on the same connection.
	_ = u.control.SetWriteDeadline(time.Time{})
	return u
}

// Unwrap is for http.ResponseController.
func (u *unstalled) Unwrap() http.ResponseWriter { return u.ResponseWriter }

func (u *unstalled) extend() { _ = u.control.SetWriteDeadline(time.Now().Add(stallTime)) }

func (u *unstalled) WriteHeader(status int) {
	u.extend()
	u.ResponseWriter.WriteHeader(status)
}

func (u *unstalled) Write(b []byte) (n int, err error) {
	for {
		u.extend()
		piece := b[n:min(n+stallPiece, len(b))]
		done, err := u.ResponseWriter.Write(piece)
		if n += done; err != nil || n == len(b) {
			return n, err
		}
	}
}

// FlushError is what http.ResponseController flushes by.
func (u *unstalled) FlushError() error {
	u.extend()
	return u.control.Flush()
}
