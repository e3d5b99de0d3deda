// Package wholefile writes small files that a crash must not leave in part, and
// makes directories and names that outlast a loss of power.
package wholefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// Write replaces a file's content, on the disk when it returns: after a crash
// before that the file is the old one or the new one, as a whole. Only its owner
// may read it. Two writers of one file must not meet.
func Write(name string, content []byte) error {
	f, err := os.OpenFile(name+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return Rename(f.Name(), name)
}

// Rename renames a file or directory within its directory, on the disk when it
// returns.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(to))
}

// MkdirAll makes a directory and what is missing above it, on the disk when it
// returns. One that is there is synced too, since whoever made it may have been
// killed before that.
func MkdirAll(dir string, mode os.FileMode) error {
	above := filepath.Dir(dir)
	if _, err := os.Stat(above); errors.Is(err, fs.ErrNotExist) {
		if err := MkdirAll(above, mode); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, mode); err != nil {
		return err
	}
	if err := SyncDir(above); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil // what may not be read above was there before
}

// SyncDir brings what was made, renamed and removed in a directory to the disk.
func SyncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // directories cannot be synced there, and need not be
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
