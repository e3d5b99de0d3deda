package federation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"atoll/internal/wholefile"
)

// What a directory knows over restarts are two small files: the regions' servers, and
// the cells that they are known as. Both change rarely. A disk that hangs must hold up
// neither calls nor gossip: whoever changes the directory notes that only, and Run
// writes. What an operator asked for is written before it is answered.

// memory is what of a directory is not written yet.
type memory struct {
	// servers and cells say that the files of that name are not what the directory
	// has; the directory's lock guards them.
	servers, cells bool
	// due tells Run that there is something to write.
	due chan struct{}
	// disk is held while files are written, never with the directory's lock.
	disk sync.Mutex
}

// note notes that a file is to be written. It is called with the lock held.
func (d *Directory) note(file *bool) {
	if d.cfg.DataDir == "" {
		return
	}
	*file = true
	select {
	case d.unwritten.due <- struct{}{}:
	default:
	}
}

// keepWritten writes what changed until ctx ends.
func (d *Directory) keepWritten(ctx context.Context) {
	for {
		select {
		case <-d.unwritten.due:
			d.write()
		case <-ctx.Done():
			d.write()
			return
		}
	}
}

// write writes what changed. What cannot be written is tried again with the next
// change.
func (d *Directory) write() {
	d.unwritten.disk.Lock()
	defer d.unwritten.disk.Unlock()
	servers, cells := make(map[string][]string), make(map[string]string)
	d.mu.Lock()
	for name, r := range d.regions {
		servers[name] = addrs(r.peers)
		if r.cell != "" {
			cells[name] = r.cell
		}
	}
	newServers, newCells := d.unwritten.servers, d.unwritten.cells
	d.unwritten.servers, d.unwritten.cells = false, false
	d.mu.Unlock()
	if newServers {
		if err := writeJSON(d.serversFile(), servers); err != nil {
			d.cfg.Log.Warn("cannot remember the regions", "error", err)
			d.failed(&d.unwritten.servers)
		}
	}
	if newCells {
		if err := writeJSON(d.cellsFile(), cells); err != nil {
			d.cfg.Log.Error("cannot remember which cells the regions are; after a restart the first that is seen is taken", "error", err)
			d.failed(&d.unwritten.cells)
		}
	}
}

func (d *Directory) failed(file *bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	*file = true
}

// writeJSON replaces a file as a whole.
func writeJSON(file string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return wholefile.Write(file, b)
}

func (d *Directory) serversFile() string { return filepath.Join(d.cfg.DataDir, "regions.json") }

// loadServers reads the remembered servers; what cannot be read is forgotten, since
// gossip tells it again.
func (d *Directory) loadServers() map[string][]string {
	if d.cfg.DataDir == "" {
		return nil
	}
	var out map[string][]string
	b, err := os.ReadFile(d.serversFile())
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		d.cfg.Log.Warn("cannot read the remembered regions", "error", err)
		return nil
	}
	return out
}

func (d *Directory) cellsFile() string { return filepath.Join(d.cfg.DataDir, "cells.json") }

// loadCells reads the cells that regions are known as. What cannot be read is no
// reason to trust whoever comes first.
func (d *Directory) loadCells() (out map[string]string, err error) {
	if d.cfg.DataDir == "" {
		return nil, nil
	}
	b, err := os.ReadFile(d.cellsFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read which cells the regions are: %w; if %s cannot be repaired, remove it, and check what atoll region list shows then", err, d.cellsFile())
	}
	return out, nil
}
