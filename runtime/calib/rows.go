package calib

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"
	"iter"
	"slices"
	"sync"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime"
)

// Rows keeps the rows that only fill up a batch (ir.Tensor.Filled) from being observed. Where they lie in a value is found by
// running the group once more with other rows in their place: what they have no influence on is the samples'. A value all of
// which depends on them (a scale for the whole batch, say) is observed as it is.
type Rows struct {
	mu      sync.Mutex
	filled  map[int]ir.Tensors // inputs of groups that are filled up, by the index of the group
	located map[int]map[*ir.Value][]place
}

// place is where the rows of one occurrence of a value lie that are to be cut off: the last of each run of indices along
// axis; axis -1: none are.
type place struct{ axis, rows, fill int }

// Watch returns the samples, noting on their way which of them are filled up.
func (r *Rows) Watch(samples ir.Samples) ir.Samples {
	return func() iter.Seq2[ir.Tensors, error] {
		return func(yield func(ir.Tensors, error) bool) {
			i := 0
			for in, err := range samples() {
				if fill, _ := fillOf(in); err == nil && fill > 0 {
					r.mu.Lock()
					if r.filled == nil {
						r.filled = map[int]ir.Tensors{}
					}
					r.filled[i] = in
					r.mu.Unlock()
				}
				i++
				if !yield(in, err) {
					return
				}
			}
		}
	}
}

// fillOf returns the number of rows that fill up a group, and of all rows.
func fillOf(in ir.Tensors) (fill, rows int) {
	for _, t := range in {
		if t.Fill() > 0 {
			return t.Fill(), t.Shape()[0]
		}
	}
	return 0, 0
}

// runner runs a model and shows what it computes.
type runner func(ctx context.Context, in ir.Tensors, see func(*ir.Value, *ir.Tensor) error) error

// Locate finds where the filling of a group lies in the given values of the model that run runs, once for each group.
func (r *Rows) Locate(ctx context.Context, run runner, group int, values func(*ir.Value) bool) error {
	r.mu.Lock()
	in := r.filled[group]
	known := r.located[group] != nil
	r.mu.Unlock()
	if in == nil || known {
		return nil
	}
	fill, rows := fillOf(in)
	prints := make([]map[*ir.Value][][][]uint64, 2)
	for i, feed := range []ir.Tensors{in, refilled(in, rows, fill)} {
		by := map[*ir.Value][][][]uint64{}
		err := run(ctx, feed, func(v *ir.Value, t *ir.Tensor) error {
			if values(v) {
				by[v] = append(by[v], fingerprints(t, rows))
			}
			return nil
		})
		if err != nil {
			return err
		}
		prints[i] = by
	}
	places := map[*ir.Value][]place{}
	for v, a := range prints[0] {
		for i, one := range a {
			at := place{axis: -1, rows: rows, fill: fill}
			if b := prints[1][v]; i < len(b) && len(b[i]) == len(one) {
				at.axis = differs(one, b[i], rows-fill)
			}
			places[v] = append(places[v], at)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.located == nil {
		r.located = map[int]map[*ir.Value][]place{}
	}
	r.located[group] = places
	return nil
}

// LocateAll is Locate for every group that was filled up, in a model that is not compiled yet.
func (r *Rows) LocateAll(ctx context.Context, m *ir.Model, o runtime.Options, values func(*ir.Value) bool) error {
	if len(r.filled) == 0 {
		return nil
	}
	p, err := runtime.CompileWith(ctx, m, o)
	if err != nil {
		return err
	}
	run := func(ctx context.Context, in ir.Tensors, see func(*ir.Value, *ir.Tensor) error) error {
		_, err := p.Watch(ctx, in, see)
		return err
	}
	for i := range r.filled {
		if err := r.Locate(ctx, run, i, values); err != nil {
			return fmt.Errorf("sample %d: %w", i, err)
		}
	}
	return nil
}

// refilled puts other rows in the place of the filling: the first sample that differs from the last, zeros if none does.
func refilled(in ir.Tensors, rows, fill int) ir.Tensors {
	row := func(t *ir.Tensor, i int) []byte {
		n := t.Size() / rows
		return t.Bytes()[i*n : (i+1)*n]
	}
	other := -1
	for i := 0; i < rows-fill && other < 0; i++ {
		for _, t := range in {
			if t.Fill() > 0 && t.Elem() != ir.String && !bytes.Equal(row(t, i), row(t, rows-1)) {
				other = i
			}
		}
	}
	out := ir.Tensors{}
	for name, t := range in {
		out[name] = t
		if t.Fill() == 0 || t.Elem() == ir.String {
			continue
		}
		data := slices.Clone(t.Bytes())
		n := len(data) / rows
		for i := rows - fill; i < rows; i++ {
			if other < 0 {
				clear(data[i*n : (i+1)*n])
			} else {
				copy(data[i*n:(i+1)*n], row(t, other))
			}
		}
		u, err := ir.TensorOf(t.Elem(), t.Shape(), data)
		if err != nil {
			panic("BUG: calib: " + err.Error())
		}
		out[name] = u
	}
	return out
}

var printSeed = maphash.MakeSeed()

// fingerprints are fingerprints of a tensor: for each axis that rows divide, one for each part of it. Other axes have none.
func fingerprints(t *ir.Tensor, rows int) [][]uint64 {
	out := make([][]uint64, t.Rank())
	if t.Elem() == ir.String || t.Elem().Size(8) < 8 || t.Len() == 0 {
		return out
	}
	data, elem := t.Bytes(), t.Elem().Size(1)
	for a, d := range t.Shape() {
		if d%rows != 0 {
			continue
		}
		post := elem
		for _, e := range t.Shape()[a+1:] {
			post *= e
		}
		chunk := d / rows * post
		out[a] = make([]uint64, rows)
		for at := 0; at < len(data); at += chunk {
			p := &out[a][at/chunk%rows]
			*p = *p*0x9E3779B97F4A7C15 + maphash.Bytes(printSeed, data[at:at+chunk])
		}
	}
	return out
}

// differs returns the first axis whose parts are equal up to real and not all equal behind; -1 if there is none.
func differs(a, b [][]uint64, real int) int {
	for axis := range a {
		if len(a[axis]) > 0 && slices.Equal(a[axis][:real], b[axis][:real]) && !slices.Equal(a[axis][real:], b[axis][real:]) {
			return axis
		}
	}
	return -1
}

// Cut returns what belongs to samples of the n-th occurrence of a value in the run of a group.
func (r *Rows) Cut(group int, v *ir.Value, n int, t *ir.Tensor) (*ir.Tensor, error) {
	r.mu.Lock()
	places := r.located[group][v]
	r.mu.Unlock()
	if n >= len(places) || places[n].axis < 0 {
		return t, nil
	}
	at := places[n]
	shape := slices.Clone(t.Shape())
	if at.axis >= len(shape) || shape[at.axis]%at.rows != 0 {
		return nil, fmt.Errorf("shape %v: wanted %d samples along axis %d", shape, at.rows, at.axis)
	}
	post := t.Elem().Size(1)
	for _, e := range shape[at.axis+1:] {
		post *= e
	}
	whole := shape[at.axis] * post
	shape[at.axis] -= shape[at.axis] / at.rows * at.fill
	part := shape[at.axis] * post
	var data []byte
	for off := 0; off < t.Size(); off += whole {
		data = append(data, t.Bytes()[off:off+part]...)
	}
	return ir.TensorOf(t.Elem(), shape, data)
}
