// Package wholefile writes small files that a crash must not leave in part.
package wholefile

import (
	"errors"
	"os"
)

// Write replaces a file's content: after a crash the file is the old one or the
// new one, as a whole. Only its owner may read it. Two writers of one file must
// not meet.
func Write(name string, content []byte) error {
	f, err := os.OpenFile(name+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
