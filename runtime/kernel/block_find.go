package kernel

import (
	"math"
	"math/bits"

	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// finder finds the codes and Δ of the blocks of panels. It looks at scales in one order, whatever the level and the blocks beside:
// the first of which all numbers of the block are multiples is taken.
type finder struct {
	p        *PackedBlocks
	strip    []float32 // the blocks of all columns of a panel, nr in a row
	most     []float32 // by column: the largest magnitude
	step, by []float32 // by column: Δ and 1/Δ
	looked   []int     // by column: how many scales were looked at
	sums     []int32   // by column: of the codes
	codes    []int32   // of one column
	open     []int     // columns whose Δ is not found
}

func newFinder(p *PackedBlocks) *finder {
	nr := p.t.nr
	return &finder{p: p, strip: alignedOf[float32](p.Size * nr), most: make([]float32, nr), step: make([]float32, nr), by: make([]float32, nr),
		looked: make([]int, nr), sums: make([]int32, nr), codes: make([]int32, p.Size)}
}

// panels finds panels [lo,hi) of the matrix that src reads; it sets bad where a block has no Δ, and stops where that is set.
func (f *finder) panels(lo, hi int, src source[float32], bad *par.Flag) {
	p := f.p
	nr := p.t.nr
	for j := lo; j < hi && !bad.IsSet(); j++ {
		for g := range p.blocks {
			rows := min(p.Size, p.K-g*p.Size)
			src.read(f.strip, g*p.Size, rows, j*nr, min(nr, p.N-j*nr), nr)
			clear(f.strip[rows*nr:])
			if !f.blocks(p.data[j*p.panel()+g*p.block():][:p.block()]) {
				bad.Set()
				return
			}
		}
	}
}

// blocks writes the blocks of the strip; ok is false where one has no Δ between leastStep and mostStep. Δ is 0 for a block of zeros.
func (f *finder) blocks(out []int32) (ok bool) {
	nr := f.p.t.nr
	clear(f.most)
	for i := range f.p.Size {
		cur.absMaxV(f.most, f.strip[i*nr:(i+1)*nr])
	}
	f.open = f.open[:0]
	for c, m := range f.most {
		if !(m <= 127*mostStep) {
			return false
		}
		f.looked[c] = 0
		f.open = append(f.open, c)
	}
	if cur.blockTry != nil {
		const rounds = 10 // how many scales are tried on all columns at once
		for round := 0; round < rounds && len(f.open) > 0; round++ {
			for _, c := range f.open {
				if !f.next(c) {
					return false
				}
			}
			f.tryAll(out)
		}
		f.finish(out)
	}
	for _, c := range f.open {
		for ok := false; !ok; ok = f.try(c) {
			if !f.next(c) {
				return false
			}
		}
		f.p.put(out, c, f.codes, f.step[c])
	}
	return true
}

// tops are the codes that the largest magnitude may have: first those it has in formats of 4 and 8 bits.
var tops = func() (ts []float32) {
	first := []float32{7, 12, 127, 8}
	ts = append(ts, first...)
	for t := float32(1); t < 128; t++ {
		if t != 7 && t != 12 && t != 127 && t != 8 {
			ts = append(ts, t)
		}
	}
	return ts
}()

// next sets the next Δ to try on column c: first the largest power of two that all numbers are multiples of, then for each top the
// quotient and its two neighbours. It reports false after the last.
func (f *finder) next(c int) bool {
	most := f.most[c]
	for i := f.looked[c]; i < 1+3*len(tops); i++ {
		var step float32
		switch {
		case most == 0:
			f.step[c], f.by[c] = 0, 0
			f.looked[c] = i + 1
			return true
		case i == 0:
			step = f.power(c)
		default:
			step = most / tops[(i-1)/3]
			switch (i - 1) % 3 {
			case 1:
				step = math.Nextafter32(step, 0)
			case 2:
				step = math.Nextafter32(step, most)
			}
		}
		if step >= leastStep && step <= mostStep {
			f.step[c], f.by[c] = step, 1/step
			f.looked[c] = i + 1
			return true
		}
	}
	return false
}

// power returns the largest power of two that the numbers of column c are multiples of, 0 where the largest is more than 127 times that.
func (f *finder) power(c int) float32 {
	nr, low := f.p.t.nr, 255
	for i := range f.p.Size {
		if b := math.Float32bits(f.strip[i*nr+c]) &^ (1 << 31); b != 0 {
			if low = min(low, int(b>>23)-23+bits.TrailingZeros32(b|1<<23)); low < 1 {
				return 0
			}
			if step := math.Float32frombits(uint32(low) << 23); f.most[c] > 127*step {
				return 0
			}
		}
	}
	return math.Float32frombits(uint32(low) << 23)
}

// try sets codes to the numbers of column c in units of its Δ, and reports whether these times Δ are the numbers.
func (f *finder) try(c int) bool {
	const half = 3 << 22 // added and taken away, it rounds
	nr, step, by := f.p.t.nr, f.step[c], f.by[c]
	for i := range f.codes {
		v := f.strip[i*nr+c]
		q := float32(float32(v*by)+half) - half
		if float32(q*step) != v || q > 127 || q < -127 {
			return false
		}
		f.codes[i] = int32(q)
	}
	return true
}

// tryAll writes the codes of all columns and leaves open those whose Δ does not do. A code is within ±127, as no Δ is less than the
// largest magnitude over that.
func (f *finder) tryAll(out []int32) {
	t := f.p.t
	lanes, words := 4*t.per, out[(t.header()-1)*t.nr:] // a vector of codes is one of words
	bad := uint64(0)
	for c := 0; c < t.nr; c += lanes {
		bad |= uint64(cur.blockTry(&words[c], &f.strip[c], &f.by[c], &f.step[c], &f.sums[c], t.nr*4, f.p.words)) << c
	}
	left := f.open[:0]
	for _, c := range f.open {
		if bad>>c&1 != 0 {
			left = append(left, c)
		}
	}
	f.open = left
}

// finish writes what stands beside the codes of all columns.
func (f *finder) finish(out []int32) {
	nr, shift := f.p.t.nr, int32(f.p.t.shift())
	for c, step := range f.step {
		if shift != 0 {
			out[c] = -shift * f.sums[c]
		}
		out[len(out)-nr+c] = int32(math.Float32bits(step))
	}
}
