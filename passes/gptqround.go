package passes

import (
	"cmp"
	"errors"
	"math"
	"slices"

	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// gramFactor is what the rounding of a weight needs of its inputs' Gram matrix: the factor of the damped inverse, columns in
// the order in which they are rounded. Weights that read the same value share it.
type gramFactor struct {
	k     int
	order []int     // position → column
	dead  []bool    // by column: its input is always 0
	lower []float64 // Uᵀ with UᵀU = H⁻¹, k×k row-major
	damp  float64   // the share of the mean diagonal that was added
	mean  float64   // the mean diagonal of columns that are not dead
}

var errNotDefinite = errors.New("the Gram matrix is not positive definite, even with a thousand times the damping")

// factorGram factors a k×k Gram matrix of which the lower triangle is read (METHODS.md §6; Frantar et al. 2022). damp times
// the mean of the diagonal is added to it, ten times as much up to three times where the factorization fails. Dead columns
// get the mean as their diagonal and do not count for it, so that the result does not depend on the scale of h. order lists
// the columns as they are to be rounded, nil for their own order.
func factorGram(k int, h []float64, damp float64, order []int) (*gramFactor, error) {
	f := &gramFactor{k: k, order: order, dead: make([]bool, k)}
	if order == nil {
		f.order = make([]int, k)
		for i := range f.order {
			f.order[i] = i
		}
	}
	mean, live := 0.0, 0
	for c := range k {
		if d := h[c*k+c]; d > 0 {
			mean += d
			live++
		} else {
			f.dead[c] = true
		}
	}
	if live == 0 {
		return nil, errors.New("its input is always 0")
	}
	mean /= float64(live)
	f.mean = mean
	u := make([]float64, k*k)
	for try := 0; ; try++ {
		f.damp = damp * math.Pow10(try)
		par.For(k, 32, func(lo, hi int) {
			for i := lo; i < hi; i++ {
				ci := f.order[i]
				for j := range i + 1 {
					cj := f.order[j]
					u[i*k+j] = h[max(ci, cj)*k+min(ci, cj)]
				}
				if f.dead[ci] {
					u[i*k+i] = mean
				}
				u[i*k+i] += f.damp * mean
			}
		})
		if kernel.CholeskyInverseUpper(k, u, k) {
			break
		}
		if try == 3 {
			return nil, errNotDefinite
		}
	}
	lowerOf(k, u)
	f.lower = u
	return f, nil
}

// lowerOf transposes an upper k×k matrix in place, tile by tile: there may be no memory for a second one.
func lowerOf(k int, u []float64) {
	const tile = 64
	for r0 := 0; r0 < k; r0 += tile {
		for c0 := 0; c0 <= r0; c0 += tile {
			for r := r0; r < min(r0+tile, k); r++ {
				for c := c0; c < min(c0+tile, r); c++ {
					u[r*k+c], u[c*k+r] = u[c*k+r], 0
				}
			}
		}
	}
}

// descending lists the columns by their diagonal of h, the largest first, the lower index first among equals.
func descending(k int, h []float64) []int {
	order := make([]int, k)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(h[b*k+b], h[a*k+a]) })
	return order
}

// gptqWeight is a weight as GPTQ sees it: rows×cols, a row for each output channel, row-major, with the groups of columns that
// share a scale in each row.
type gptqWeight struct {
	rows, cols int
	target     []float64 // what is rounded: the weight, or what makes up for its inputs' drift
	scheme     numfmt.Scheme
	group      []int // column → group
	groups     int

	// params are the parameters of each group, one entry a row. Where they are nil, fit makes them when the rounding comes to
	// the group, from its values as they then are: n rows from first on, row-major, as many columns as the group has.
	params []numfmt.Params
	fit    func(first, n int, x []float32) (numfmt.Params, error)
	// stale makes fit see the values as they were at the start of the block of 128 columns, as the reference does.
	stale bool
}

// gptqRounded is the result of gptqRound.
type gptqRounded struct {
	q      []float32       // rows×cols: on the grid
	params []numfmt.Params // by group, one entry a row
	loss   float64         // Σe²/2 over all columns, e = (w-q)/U_jj
}

const (
	gptqBlock = 128 // columns between updates of all the columns that follow
	gptqStep  = 16  // columns between updates of the rest of the block
	gptqChunk = 128 // rows that are rounded together; the result does not depend on it
)

// gptqRound rounds the columns one by one and makes up for each error in the columns not yet rounded (METHODS.md §6). Values
// are kept in float64, the rounding itself is the scheme's, in float32.
func gptqRound(w *gptqWeight, f *gramFactor) (*gptqRounded, error) {
	out := &gptqRounded{q: make([]float32, w.rows*w.cols), params: w.params}
	fitted := w.params == nil
	if fitted {
		out.params = make([]numfmt.Params, w.groups)
		for g := range out.params {
			out.params[g] = numfmt.Params{Scale: make([]float32, w.rows)}
			if w.scheme.Affine || w.scheme.FromData() && w.scheme.Format.Kind == numfmt.Book {
				out.params[g].Zero = make([]float32, w.rows)
			}
			if w.scheme.TwoLevel() {
				out.params[g].Code, out.params[g].Coarse = make([]float32, w.rows), make([]float32, w.rows)
			}
		}
	}
	chunks := (w.rows + gptqChunk - 1) / gptqChunk
	losses, errs := make([]float64, chunks), make([]error, chunks)
	blocks, starts := w.blocks(f)
	par.For(chunks, 1, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			c := &gptqRows{w: w, f: f, out: out, first: i * gptqChunk, n: min(gptqChunk, w.rows-i*gptqChunk), fitted: fitted}
			losses[i], errs[i] = c.round(blocks, starts)
		}
	})
	for i := range chunks {
		if errs[i] != nil {
			return nil, errs[i]
		}
		out.loss += losses[i]
	}
	return out, nil
}

// blocks cuts the positions into blocks. starts lists at its first position each set of groups that are fitted there; a block never
// ends inside a set, but between its own pieces of gptqBlock columns where the set is longer, and so all that came before a
// set has been made up for when it is fitted.
func (w *gptqWeight) blocks(f *gramFactor) (blocks []int, starts map[int][]int) {
	starts = map[int][]int{}
	if w.params != nil || w.stale {
		for p := 0; p < w.cols; p += gptqBlock {
			blocks = append(blocks, p)
		}
		blocks = append(blocks, w.cols)
		if w.params == nil {
			seen := make([]bool, w.groups)
			for p, c := range f.order {
				if g := w.group[c]; !seen[g] {
					seen[g] = true
					starts[p] = append(starts[p], g)
				}
			}
		}
		return blocks, starts
	}
	last := make([]int, w.groups) // by group: the position behind its last column
	for p, c := range f.order {
		last[w.group[c]] = p + 1
	}
	seen := make([]bool, w.groups)
	var sets []int // first positions
	end := 0
	for p, c := range f.order {
		if p == end {
			sets = append(sets, p)
		}
		g := w.group[c]
		end = max(end, last[g])
		if s := sets[len(sets)-1]; !seen[g] {
			seen[g] = true
			starts[s] = append(starts[s], g)
		}
	}
	sets = append(sets, w.cols)
	blocks = []int{0}
	for i := 0; i+1 < len(sets); i++ {
		s, e, from := sets[i], sets[i+1], blocks[len(blocks)-1]
		if e-from > gptqBlock && s > from {
			blocks = append(blocks, s)
		}
		for p := blocks[len(blocks)-1] + gptqBlock; p < e; p += gptqBlock {
			blocks = append(blocks, p)
		}
	}
	return append(blocks, w.cols), starts
}

// gptqRows rounds a chunk of rows.
type gptqRows struct {
	w        *gptqWeight
	f        *gramFactor
	out      *gptqRounded
	first, n int
	fitted   bool

	t []float64 // the weights as they now are: position × row
	q []float32 // the weights on the grid: column × row
}

func (c *gptqRows) round(blocks []int, starts map[int][]int) (loss float64, err error) {
	k, n := c.w.cols, c.n
	columns := make([]float64, k*n)
	kernel.Transpose(n, k, columns, n, c.w.target[c.first*k:], k)
	c.t, c.q = make([]float64, k*n), make([]float32, k*n)
	for p, col := range c.f.order {
		if !c.f.dead[col] {
			copy(c.t[p*n:(p+1)*n], columns[col*n:])
		}
	}
	e := make([]float64, gptqBlock*n) // minus the error of each column of the block
	x, q := make([]float32, n), make([]float32, n)
	for i := 0; i+1 < len(blocks); i++ {
		a, b := blocks[i], blocks[i+1]
		if c.w.stale {
			for p := a; p < b; p++ {
				if err := c.fit(starts[p]); err != nil {
					return 0, err
				}
			}
		}
		for s := a; s < b; {
			if !c.w.stale {
				if err := c.fit(starts[s]); err != nil {
					return 0, err
				}
			}
			to := s + 1
			for to < min(s+gptqStep, b) && (c.w.stale || starts[to] == nil) {
				to++
			}
			for p := s; p < to; p++ {
				lossOf, err := c.column(p, x, q, e[(p-a)*n:(p-a+1)*n])
				if err != nil {
					return 0, err
				}
				loss += lossOf
				for j := p + 1; j < to; j++ {
					u, row, err := c.f.lower[j*k+p], c.t[j*n:(j+1)*n], e[(p-a)*n:(p-a+1)*n]
					for r, v := range err {
						row[r] += v * u
					}
				}
			}
			if to < b {
				kernel.MatMul64(b-to, n, to-s, c.f.lower[to*k+s:], k, false, e[(s-a)*n:], n, false, c.t[to*n:], n, true)
			}
			s = to
		}
		if b < k {
			kernel.MatMul64(k-b, n, b-a, c.f.lower[b*k+a:], k, false, e, n, false, c.t[b*n:], n, true)
		}
	}
	kernel.Transpose(k, n, c.out.q[c.first*k:], k, c.q, n)
	return loss, nil
}

// column rounds the column at a position, and sets e to minus its error over U_pp.
func (c *gptqRows) column(p int, x, q []float32, e []float64) (loss float64, err error) {
	col, k := c.f.order[p], c.w.cols
	t := c.t[p*c.n : (p+1)*c.n]
	for r, v := range t {
		x[r] = float32(v)
	}
	params := c.out.params[c.w.group[col]]
	if params.Scale != nil {
		params.Scale = params.Scale[c.first : c.first+c.n]
	}
	if params.Zero != nil {
		params.Zero = params.Zero[c.first : c.first+c.n]
	}
	if err := c.w.scheme.RoundEach(q, x, params); err != nil {
		return 0, err
	}
	copy(c.q[col*c.n:], q)
	u := c.f.lower[p*k+p]
	for r, v := range t {
		d := (float64(q[r]) - v) / u
		e[r] = d
		loss += d * d / 2
	}
	return loss, nil
}

// fit makes the parameters of groups from the values as they now are.
func (c *gptqRows) fit(groups []int) error {
	for _, g := range groups {
		var at []int
		for p, col := range c.f.order {
			if c.w.group[col] == g {
				at = append(at, p)
			}
		}
		x := make([]float32, c.n*len(at))
		for r := range c.n {
			for i, p := range at {
				x[r*len(at)+i] = float32(c.t[p*c.n+r])
			}
		}
		fitted, err := c.w.fit(c.first, c.n, x)
		if err != nil {
			return err
		}
		to := c.out.params[g]
		copy(to.Scale[c.first:], fitted.Scale)
		copy(to.Zero[min(c.first, len(to.Zero)):], fitted.Zero)
		copy(to.Code[min(c.first, len(to.Code)):], fitted.Code)
		for r := range c.n {
			if to.Coarse != nil {
				to.Coarse[c.first+r] = fitted.Coarse[min(r, len(fitted.Coarse)-1)]
			}
		}
	}
	return nil
}

// errorOf is tr(E·H·Eᵀ), E = q-target, of a rounding: twice its loss, less what the damping adds. H is that of the factor.
func (r *gptqRounded) errorOf(f *gramFactor, target []float64) float64 {
	norm := sumOfRows(len(r.q)/f.k, func(row int) (sum float64) {
		for c, v := range r.q[row*f.k : (row+1)*f.k] {
			if d := float64(v) - target[row*f.k+c]; !f.dead[c] {
				sum += d * d
			}
		}
		return sum
	})
	return 2*r.loss - f.damp*f.mean*norm
}

// gramError is tr(E·H·Eᵀ) for E = q-w, rows×k, and h's lower triangle: the summed squared error of the product on the inputs.
// Products E·H are float32.
func gramError(rows, k int, q []float32, w, h []float64) float64 {
	unit := 0.0
	for i := range k {
		unit = max(unit, h[i*k+i])
	}
	if unit == 0 {
		return 0
	}
	e, t, full := make([]float32, rows*k), make([]float32, rows*k), make([]float32, k*k)
	par.For(rows, 16, func(lo, hi int) {
		for i := lo * k; i < hi*k; i++ {
			e[i] = float32(float64(q[i]) - w[i])
		}
	})
	par.For(k, 16, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			for j, v := range h[i*k : i*k+i+1] {
				full[i*k+j] = float32(v / unit)
			}
		}
	})
	kernel.MirrorLower(k, full, k)
	kernel.MatMul(rows, k, k, e, k, false, full, k, false, t, k, false)
	return unit * sumOfRows(rows, func(row int) (sum float64) {
		for i := row * k; i < (row+1)*k; i++ {
			sum += float64(t[i]) * float64(e[i])
		}
		return sum
	})
}

// sumOfRows adds up what f tells of each row, on all cores and in their order.
func sumOfRows(rows int, f func(row int) float64) (sum float64) {
	each := make([]float64, rows)
	par.For(rows, 16, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			each[r] = f(r)
		}
	})
	for _, v := range each {
		sum += v
	}
	return sum
}

// float64s widens values.
func float64s(x []float32) []float64 {
	y := make([]float64, len(x))
	par.For(len(x), 1<<14, func(lo, hi int) {
		for i, v := range x[lo:hi] {
			y[lo+i] = float64(v)
		}
	})
	return y
}

// shift moves a rows×k target by a share of w·D·(H+λ)⁻¹: with D = Σ(z-x)ᵀ·x that is the least squares answer, damped as the
// rounding is, to what w·(z-x) adds to the products w·x. Dead columns stay.
func (f *gramFactor) shift(rows int, target []float64, w []float32, d []float64, share float64) {
	k := f.k
	a, b := make([]float64, rows*k), make([]float64, rows*k)
	kernel.MatMul64(rows, k, k, float64s(w), k, false, d, k, false, a, k, false)
	for r := range rows { // in the order of positions
		for p, c := range f.order {
			if !f.dead[c] {
				b[r*k+p] = a[r*k+c]
			}
		}
	}
	// (H+λ)⁻¹ = UᵀU
	kernel.MatMul64(rows, k, k, b, k, false, f.lower, k, false, a, k, false)
	kernel.MatMul64(rows, k, k, a, k, false, f.lower, k, true, b, k, false)
	for r := range rows {
		for p, c := range f.order {
			if !f.dead[c] {
				target[r*k+c] += share * b[r*k+p]
			}
		}
	}
}
