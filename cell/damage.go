package cell

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// Damage says that a file of a member's data is not as it was written, and
// where. The member takes no part in Raft with it.
type Damage struct {
	File string
	// Offset is of the damaged record or page, in bytes from the beginning; −1
	// before it was looked for.
	Offset int64
	// What is damaged: "log entry 812", "page 7".
	What string
	Why  string
}

func (d *Damage) Error() string {
	if d.Offset < 0 {
		return fmt.Sprintf("%s is damaged: %s: %s", d.File, d.What, d.Why)
	}
	return fmt.Sprintf("%s is damaged at byte %d: %s: %s", d.File, d.Offset, d.What, d.Why)
}

func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// writeSynced writes a small file so that it is there whole or not at all.
func writeSynced(path string, b []byte) error {
	fresh := path + ".new"
	f, err := os.OpenFile(fresh, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return renameSynced(fresh, path)
}

// renameSynced renames a file or directory, on the disk when it returns.
func renameSynced(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // directories cannot be synced there, and need not be
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
