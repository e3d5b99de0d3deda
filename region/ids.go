package region

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"atoll/model"
)

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
