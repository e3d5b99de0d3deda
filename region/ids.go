package region

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"atoll/internal/wholefile"
	"atoll/model"
)

// serverID is this server's Raft id, made once and kept.
func serverID(dir string) (string, error) {
	file := filepath.Join(dir, "node-id")
	id, err := readID(file)
	if err != nil || id != "" {
		return id, err
	}
	id = model.NewUUID(nil).String()
	if err := wholefile.Write(file, []byte(id+"\n")); err != nil {
		return "", fmt.Errorf("cannot keep this server's id: %w", err)
	}
	return id, nil
}

// readID reads an id that a file keeps, "" when there is no file.
func readID(file string) (string, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cannot read an id: %w", err)
	}
	id := strings.TrimSpace(string(b))
	if _, ok := model.ParseUUID(id); !ok {
		return "", fmt.Errorf("cannot read an id: %s holds %q, which is no UUID", file, id)
	}
	return id, nil
}
