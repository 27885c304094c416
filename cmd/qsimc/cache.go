package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/qsimc/qsimc/passes"
	"github.com/qsimc/qsimc/runtime/calib"
)

// openCache opens the file of --calib-cache and computes the key under which this run's ranges are found: the hash of the
// model's file, its constants wherever they are stored, and of all samples.
func (j *rewriting) openCache(u *passes.Unit) error {
	if j.flags.cache == "" || u.Samples == nil {
		return nil
	}
	h := sha256.New()
	f, err := os.Open(j.path)
	if err != nil {
		return err
	}
	_, err = io.Copy(h, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%s: %w", j.path, err)
	}
	for g := range u.Model.Graphs() { // weights may lie in other files
		for _, v := range g.Consts() {
			if err := v.Const().Load(); err != nil {
				return fmt.Errorf("constant %q: %w", v.Name, err)
			}
			if _, err := h.Write(v.Const().Bytes()); err != nil {
				return err
			}
		}
	}
	for sample, err := range u.Samples() {
		if err != nil {
			return err
		}
		var names []string
		for name := range sample {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			t := sample[name]
			fmt.Fprintf(h, "%q %v %v %d\n", name, t.Elem(), t.Shape(), t.Fill())
			if _, err := h.Write(t.Bytes()); err != nil {
				return err
			}
		}
		fmt.Fprintln(h, "next")
	}
	u.CacheKey = fmt.Sprintf("%x", h.Sum(nil))
	u.Cache, err = calib.OpenCache(j.flags.cache)
	return err
}
