package cell

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"atoll/cell/state"
	"atoll/internal/wholefile"
	"atoll/model"
)

// dataDir is a member's directory, DataDir/raft. Whatever makes the member who
// it is lies in it, its id too: a server whose directory was lost, or set aside,
// is another member, which has voted for nobody and acked nothing.
type dataDir struct {
	path  string
	build string
}

const (
	fileLog    = "log.db"
	fileID     = "node-id"
	fileFormat = "format"
)

// dataFormat is of the directory as a whole. In format 1 the log's records had
// no sums, and the id lay beside the directory.
const dataFormat = 2

func (d dataDir) file(name string) string { return filepath.Join(d.path, name) }

// prepare makes the directory if there is none, brings one of an older format to
// this one, and returns the member's id. It changes nothing in one that a newer
// version wrote. Errors are *state.Newer, *Damage, and those of the file system.
//
// A directory without an id is given newID, or one made up.
func (d dataDir) prepare(open func(string) (LogStore, error), newID string) (id string, err error) {
	if err := wholefile.MkdirAll(d.path, 0o700); err != nil {
		return "", err
	}
	format, err := d.format()
	if err != nil {
		return "", err
	}
	log, err := exists(d.file(fileLog))
	if err != nil {
		return "", err
	}
	snapshot, err := newestSnapshot(d.path)
	if err != nil {
		return "", err
	}
	if !log && (format > 0 || snapshot != "") {
		return "", &Damage{File: d.file(fileLog), What: "the log", Why: "it is missing"}
	}
	if id, err = d.id(log, newID); err != nil {
		return "", err
	}
	if format == dataFormat {
		return id, nil
	}
	s, err := open(d.file(fileLog))
	if err != nil {
		return "", err
	}
	if err := errors.Join(sealOld(s), s.Close()); err != nil {
		return "", fmt.Errorf("cannot bring %s to format %d: %w", d.path, dataFormat, err)
	}
	return id, wholefile.Write(d.file(fileFormat), formatLine(dataFormat))
}

// formatLine has a sum too, so that a damaged one is not taken for a newer.
func formatLine(n int) []byte {
	line := fmt.Sprintf("format %d", n)
	return fmt.Appendf(nil, "%s %08x\n", line, crc32.Checksum([]byte(line), castagnoli))
}

// format is the directory's format, 0 when it does not say.
func (d dataDir) format() (int, error) {
	b, err := os.ReadFile(d.file(fileFormat))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var n int
	if _, err := fmt.Sscanf(string(b), "format %d", &n); err != nil || n < 1 || string(b) != string(formatLine(n)) {
		return 0, &Damage{File: d.file(fileFormat), What: "the format", Why: "its checksum is wrong"}
	}
	if n > dataFormat {
		return 0, &state.Newer{What: fmt.Sprintf("%s, of format %d", d.path, n), Ours: fmt.Sprintf("%s (format %d)", d.build, dataFormat)}
	}
	return n, nil
}

// id is the member's, made once and kept; an older version kept it beside the
// directory.
func (d dataDir) id(hasLog bool, newID string) (string, error) {
	b, err := os.ReadFile(d.file(fileID))
	if err == nil {
		return strings.TrimSpace(string(b)), nil
	}
	if errors.Is(err, fs.ErrNotExist) && hasLog {
		b, err = os.ReadFile(filepath.Join(filepath.Dir(d.path), fileID))
	}
	id := strings.TrimSpace(string(b))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		id = cmp.Or(newID, model.NewUUID(nil).String())
	case err != nil:
		return "", err
	}
	return id, wholefile.Write(d.file(fileID), []byte(id+"\n"))
}

// sealOld gives the records of a format-1 log their sums. What has one already
// is left, so that it can be begun again.
func sealOld(s LogStore) error {
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	var batch []*raft.Log
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := s.StoreLogs(batch)
		batch = batch[:0]
		return err
	}
	for i := first; i <= last && first > 0; i++ {
		l := new(raft.Log)
		if err := s.GetLog(i, l); errors.Is(err, raft.ErrLogNotFound) {
			continue // a restored snapshot leaves a gap
		} else if err != nil {
			return err
		}
		if len(l.Extensions) > 0 {
			continue
		}
		if batch = append(batch, sealed(l)); len(batch) >= 1024 {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	for _, key := range []string{keyTerm, keyVoteTerm, keyVoteCand} {
		v, err := s.Get([]byte(key))
		if err != nil {
			continue // there is none
		}
		if _, why := unsealValue([]byte(key), v); why != "" {
			if err := s.Set([]byte(key), sealedValue([]byte(key), v)); err != nil {
				return err
			}
		}
	}
	return nil
}

// checked says what a check went through.
type checked struct {
	entries int
	bytes   int64
}

// check reads the log and the newest snapshot whole. Errors are *Damage,
// *state.Newer, and those of the file system.
func (d dataDir) check() (checked, error) {
	var out checked
	base := uint64(0)
	name, err := newestSnapshot(d.path)
	if err != nil {
		return out, err
	}
	if name != "" {
		if err := checkSnapshot(filepath.Join(snapshotDir(d.path), name), d.build); err != nil {
			return out, err
		}
		if _, base, err = placeOf(name); err != nil {
			return out, err
		}
	}
	next, newer := uint64(0), error(nil)
	path, decoder := d.file(fileLog), newLogDecoder()
	err = walkBolt(path, map[string]visitor{
		"logs": func(key, value []byte, offset int64) (what, why string) {
			out.entries++
			out.bytes += int64(len(value))
			if len(key) != 8 {
				return "the log", fmt.Sprintf("%x is no index", key)
			}
			index := binary.BigEndian.Uint64(key)
			what = fmt.Sprintf("log entry %d", index)
			var l raft.Log
			if err := decoder.decode(value, &l); err != nil {
				return what, err.Error()
			}
			if why := unseal(&l, index); why != "" {
				return what, why
			}
			// Up to the snapshot there may be gaps: a restored or sent
			// one leaves them.
			if index != next && index > base+1 {
				return what, fmt.Sprintf("entry %d should come here", max(next, base+1))
			}
			next = index + 1
			if newer == nil {
				newer = unknown(&l, d.build)
			}
			return "", ""
		},
		"conf": func(key, value []byte, _ int64) (what, why string) {
			switch string(key) {
			case keyTerm, keyVoteTerm, keyVoteCand:
			default:
				return "a key", fmt.Sprintf("%q is none of Raft's", key)
			}
			_, why = unsealValue(key, value)
			if why != "" {
				return string(key), why
			}
			return "", ""
		},
	})
	if err == nil && newer != nil {
		err = fmt.Errorf("cannot use %s: %w", path, newer)
	}
	return out, err
}

// setAside renames a damaged directory, which is kept, and returns its new name.
func (d dataDir) setAside(now time.Time) (string, error) {
	to := d.path + asideMark + now.UTC().Format("20060102T150405.000Z")
	if err := wholefile.Rename(d.path, to); err != nil {
		return "", fmt.Errorf("cannot set the damaged directory aside: %w", err)
	}
	return to, nil
}

const asideMark = ".damaged-"

// setAsideBefore reports whether this server has set a damaged directory aside
// that is still there.
func (d dataDir) setAsideBefore() (bool, error) {
	found, err := filepath.Glob(d.path + asideMark + "*")
	return len(found) > 0, err
}

// checkLogged checks the directory and logs how long that took.
func (d dataDir) checkLogged(log hclog.Logger) error {
	start := time.Now()
	out, err := d.check()
	if err == nil && out.entries > 0 {
		log.Info("checked the log", "entries", out.entries, "bytes", out.bytes, "took", time.Since(start).Round(time.Millisecond))
	}
	return err
}
