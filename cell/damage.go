package cell

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
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

// damagedMessage is what an operator reads first.
const damagedMessage = "this server's data are damaged: it takes no part in its cell; once that has gone on without them, they are set aside, and it comes back as a new member"

func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
