package client

import (
	"fmt"
	"os"
	"path/filepath"

	"atoll/model"
)

// putPayload writes what the job was dispatched with into the task's local
// directory, if the task asks for it. Nothing outside of that is written to,
// whatever links the directory holds.
func (d dirs) putPayload(j *model.Job, t *model.Task) error {
	if t.DispatchPayload == nil {
		return nil
	}
	payload, err := j.DispatchedPayload()
	if err != nil || payload == nil {
		return err
	}
	root, err := os.OpenRoot(d.local(t.Name))
	if err != nil {
		return fmt.Errorf("cannot write the dispatch payload: %w", err)
	}
	defer root.Close()
	file := filepath.FromSlash(t.DispatchPayload.File)
	// Tasks may run as users of their own.
	if err := root.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("cannot write the dispatch payload: %w", err)
	}
	if err := root.WriteFile(file, payload, 0o644); err != nil {
		return fmt.Errorf("cannot write the dispatch payload: %w", err)
	}
	return nil
}
