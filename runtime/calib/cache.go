package calib

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
)

// Cache keeps calibrated ranges on disk, so that a second run with the same model, samples and calibrator does not run the
// model again. Keys are the caller's: they must name all that a range depends on.
type Cache struct {
	path   string
	ranges map[string]cached
	dirty  bool
}

// cached is a range for each group, as the bits of float32, which JSON keeps exactly.
type cached struct {
	Lo []uint32 `json:"lo"`
	Hi []uint32 `json:"hi"`
}

// OpenCache reads a cache file; one that does not exist is an empty cache, one that is damaged an error.
func OpenCache(path string) (*Cache, error) {
	c := &Cache{path: path, ranges: map[string]cached{}}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("calibration cache: %w", err)
	}
	if err := json.Unmarshal(data, &c.ranges); err != nil {
		return nil, fmt.Errorf("calibration cache %s: %w: delete it, or name another file", path, err)
	}
	for _, key := range slices.Sorted(maps.Keys(c.ranges)) {
		r := c.ranges[key]
		if len(r.Lo) != len(r.Hi) || len(r.Lo) == 0 {
			return nil, fmt.Errorf("calibration cache %s: entry %q has %d lower and %d upper bounds, wanted as many of both: delete it, or name another file",
				path, key, len(r.Lo), len(r.Hi))
		}
	}
	return c, nil
}

// Get returns the ranges stored under a key.
func (c *Cache) Get(key string) (lo, hi []float32, ok bool) {
	r, ok := c.ranges[key]
	if !ok {
		return nil, nil, false
	}
	for i := range r.Lo {
		lo, hi = append(lo, math.Float32frombits(r.Lo[i])), append(hi, math.Float32frombits(r.Hi[i]))
	}
	return lo, hi, true
}

// Put stores ranges under a key.
func (c *Cache) Put(key string, lo, hi []float32) {
	var r cached
	for i := range lo {
		r.Lo, r.Hi = append(r.Lo, math.Float32bits(lo[i])), append(r.Hi, math.Float32bits(hi[i]))
	}
	c.ranges[key], c.dirty = r, true
}

// Save writes the file, if anything was stored, under a temporary name first. Entries are in the order of their keys.
func (c *Cache) Save() (err error) {
	if !c.dirty {
		return nil
	}
	data, err := json.Marshal(c.ranges)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(c.path), ".qsimc-cache-*")
	if err != nil {
		return fmt.Errorf("calibration cache: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("calibration cache: %w", err), os.Remove(f.Name()))
		}
	}()
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	c.dirty = false
	return os.Rename(f.Name(), c.path)
}
