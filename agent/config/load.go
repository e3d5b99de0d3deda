package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"atoll/internal/nearest"
	"atoll/model"
)

// maxFile bounds a configuration file.
const maxFile = 1 << 20

// Load reads files, and the .hcl and .json files of directories by name, over
// c, in order.
func (c *Config) Load(paths []string) error {
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			return fmt.Errorf("cannot read configuration: %w", err)
		}
		files := []string{p}
		if info.IsDir() {
			files = nil
			entries, err := os.ReadDir(p)
			if err != nil {
				return fmt.Errorf("cannot read configuration: %w", err)
			}
			for _, e := range entries {
				if ext := filepath.Ext(e.Name()); !e.IsDir() && (ext == ".hcl" || ext == ".json") {
					files = append(files, filepath.Join(p, e.Name()))
				}
			}
		}
		for _, f := range files {
			src, err := os.ReadFile(f)
			if err != nil {
				return fmt.Errorf("cannot read configuration: %w", err)
			}
			if err := c.Parse(f, src); err != nil {
				return err
			}
		}
	}
	return nil
}

// Parse reads one file's text over c. The first line of the error names file
// and line.
func (c *Config) Parse(name string, src []byte) error {
	if len(src) > maxFile {
		return model.Invalidf(name, "%s: a configuration of %d bytes is over the limit of %d", name, len(src), maxFile)
	}
	var tree []entry
	var err error
	if strings.HasSuffix(name, ".json") || strings.HasPrefix(strings.TrimSpace(string(src)), "{") {
		tree, err = parseJSON(name, src)
	} else {
		tree, err = parseHCL(name, src)
	}
	if err != nil {
		return err
	}
	return c.apply("", tree)
}

func (c *Config) apply(prefix string, tree []entry) error {
	for _, e := range tree {
		path := prefix + e.key
		unsaid := e.value == nil && e.block == nil
		if set, ok := settings[path]; ok {
			if set == nil {
				c.warn(path, e)
				continue
			}
			if unsaid {
				continue
			}
			if err := set(c, e); err != nil {
				return model.Invalidf(path, "%s: %s: %v", e.where, path, err)
			}
			continue
		}
		if isBlock(path) {
			if e.block == nil && !unsaid {
				return model.Invalidf(path, "%s: %s: %v is not a block: write %s { … }", e.where, path, e, path)
			}
			if err := c.apply(path+".", e.block); err != nil {
				return err
			}
			continue
		}
		if without(path) {
			c.warn(path, e)
			continue
		}
		return model.Invalidf(path, "%s: unknown key %q%s", e.where, path, suggest(path))
	}
	return nil
}

func (c *Config) warn(path string, e entry) {
	c.Warnings = append(c.Warnings, fmt.Sprintf("%s: %s has no effect in this version of Atoll", e.where, path))
}

// suggest names the key that was most likely meant, of all that are accepted.
func suggest(path string) string {
	var known []string
	for key := range settings {
		known = append(known, key)
		if block, _, below := strings.Cut(key, "."); below {
			known = append(known, block)
		}
	}
	for prefix, keys := range noEffect {
		for _, key := range strings.Fields(keys) {
			known = append(known, prefix+strings.TrimSuffix(key, ".*"))
		}
	}
	if best := nearest.Word(path, known); best != "" {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	return ""
}
