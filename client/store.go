package client

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"atoll/drivers"
	"atoll/internal/wholefile"
	"atoll/internal/wire"
	"atoll/model"
)

// store is what a node keeps on disk: a bucket an allocation, in it the
// allocation, its health and a key a task; and what it last heard of the servers.
type store struct{ db *bbolt.DB }

// taskRecord is a task as it rests on disk.
type taskRecord struct {
	// Attempt numbers the starts; Begun says that the driver was called for
	// this one, and Handle is its answer.
	Attempt  int
	Begun    bool
	Handle   drivers.Handle
	State    *model.TaskState
	Restarts restarts
}

// allocRecord is an allocation with its tasks.
type allocRecord struct {
	Alloc *model.Allocation
	Tasks map[string]*taskRecord
	// Health is zero until the allocation was looked at.
	Health health
}

// directory is what the servers last told of themselves.
type directory struct {
	Servers []string
	Regions map[string][]string
	// Index is the highest that the node has seen of its allocations.
	Index uint64
}

var (
	allocsBucket = []byte("allocs")
	metaBucket   = []byte("meta")
	directoryKey = []byte("directory")
	contactKey   = []byte("contact")
	allocKey     = []byte("alloc")
	healthKey    = []byte("health")
	taskPrefix   = "task/"
)

func openStore(dir string) (*store, error) {
	file := filepath.Join(dir, "state.db")
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		// Made under another name: one that a loss of power left in part
		// could not be opened, and the node not be started.
		if err := makeStore(file); err != nil {
			return nil, fmt.Errorf("cannot make %s: %w", file, err)
		}
	}
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{Timeout: 2 * time.Second, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("cannot open %s: another agent has it open; give each agent a data_dir of its own", file)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", file, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(allocsBucket)
		if err == nil {
			_, err = tx.CreateBucketIfNotExists(metaBucket)
		}
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot prepare %s: %w", file, err), db.Close())
	}
	return &store{db}, nil
}

func makeStore(file string) error {
	fresh := file + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	db, err := bbolt.Open(fresh, 0o600, &bbolt.Options{Timeout: 2 * time.Second})
	if err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	return wholefile.Rename(fresh, file)
}

func (s *store) close() error { return s.db.Close() }

func put(b *bbolt.Bucket, key []byte, v any) error {
	data, err := wire.Encode(v)
	if err != nil {
		return err
	}
	return b.Put(key, data)
}

func (s *store) putAlloc(a *model.Allocation) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.Bucket(allocsBucket).CreateBucketIfNotExists([]byte(a.ID))
		if err != nil {
			return err
		}
		return put(b, allocKey, a)
	})
}

func (s *store) putTask(allocID, task string, r *taskRecord) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(allocsBucket).Bucket([]byte(allocID))
		if b == nil {
			return nil // forgotten meanwhile
		}
		return put(b, []byte(taskPrefix+task), r)
	})
}

func (s *store) putHealth(allocID string, h health) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(allocsBucket).Bucket([]byte(allocID))
		if b == nil {
			return nil // forgotten meanwhile
		}
		return put(b, healthKey, h)
	})
}

func (s *store) deleteAlloc(id string) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		if err := tx.Bucket(allocsBucket).DeleteBucket([]byte(id)); err != nil && !errors.Is(err, berrors.ErrBucketNotFound) {
			return err
		}
		return nil
	})
}

// allocs returns all that is kept. What cannot be read is an error: to go on
// without it would start its tasks a second time.
func (s *store) allocs() ([]*allocRecord, error) {
	var out []*allocRecord
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(allocsBucket).ForEachBucket(func(id []byte) error {
			r := &allocRecord{Tasks: make(map[string]*taskRecord)}
			err := tx.Bucket(allocsBucket).Bucket(id).ForEach(func(k, v []byte) error {
				if task, ok := strings.CutPrefix(string(k), taskPrefix); ok {
					r.Tasks[task] = new(taskRecord)
					return wire.Decode(v, r.Tasks[task])
				}
				if string(k) == string(healthKey) {
					return wire.Decode(v, &r.Health)
				}
				r.Alloc = new(model.Allocation)
				return wire.Decode(v, r.Alloc)
			})
			if err != nil {
				return fmt.Errorf("cannot read allocation %s: %w", id, err)
			}
			if r.Alloc != nil && r.Alloc.Job != nil {
				out = append(out, r)
			}
			return nil
		})
	})
	return out, err
}

func (s *store) putDirectory(d directory) error {
	return s.db.Update(func(tx *bbolt.Tx) error { return put(tx.Bucket(metaBucket), directoryKey, d) })
}

func (s *store) directory() (d directory, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		if b := tx.Bucket(metaBucket).Get(directoryKey); b != nil {
			return wire.Decode(b, &d)
		}
		return nil
	})
	return d, err
}

func (s *store) putContact(c contact) error {
	return s.db.Update(func(tx *bbolt.Tx) error { return put(tx.Bucket(metaBucket), contactKey, c) })
}

// contact is zero when none was kept.
func (s *store) contact() (c contact, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		if b := tx.Bucket(metaBucket).Get(contactKey); b != nil {
			return wire.Decode(b, &c)
		}
		return nil
	})
	return c, err
}

// identity is the node's id and secret, made once and kept.
func identity(dir string) (id, secret string, err error) {
	read := func(name string) (string, error) {
		file := filepath.Join(dir, name)
		b, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			made := model.NewUUID(nil).String()
			if err := wholefile.Write(file, []byte(made)); err != nil {
				return "", fmt.Errorf("cannot keep the node's %s: %w", name, err)
			}
			return made, nil
		}
		if err != nil {
			return "", fmt.Errorf("cannot read the node's %s: %w", name, err)
		}
		s := strings.TrimSpace(string(b))
		if _, ok := model.ParseUUID(s); !ok {
			return "", fmt.Errorf("cannot read the node's %s: %s holds no UUID", name, file)
		}
		return s, nil
	}
	if id, err = read("client-id"); err == nil {
		secret, err = read("secret-id")
	}
	return id, secret, err
}
