package kernel

import "math"

// Comparison holds sums over two slices, in float64 and in a fixed order: pieces of 16384 elements, 8 lanes in each.
type Comparison struct {
	XX, YY, XY float64 // Σx², Σy², Σx·y
	DD         float64 // Σ(x−y)²: NaN or infinite where an element of either is, or the sum of two infinities
	MaxD       float64 // the largest |x−y|; any number where DD is NaN
	MaxX       float32 // the largest |x|, NaN where x holds one
	Zeros      int     // elements of y that are 0
}

// Add adds the sums over another piece.
func (c *Comparison) Add(o Comparison) {
	c.XX += o.XX
	c.YY += o.YY
	c.XY += o.XY
	c.DD += o.DD
	c.MaxD = max(c.MaxD, o.MaxD)
	c.MaxX = max(c.MaxX, o.MaxX) // the built-in keeps NaN
	c.Zeros += o.Zeros
}

// Compare measures how far y is from x; they are equally long.
func Compare(x, y []float32) Comparison {
	same("Compare", len(x), len(y))
	if len(x) <= elemGrain {
		return cur.compare(x, y)
	}
	var all Comparison
	for _, c := range partials(len(x), func(lo, hi int) Comparison { return cur.compare(x[lo:hi], y[lo:hi]) }) {
		all.Add(c)
	}
	return all
}

// compareLanes are sums in lanes: element i goes to lane i mod 8. Vector kernels know where the fields lie.
type compareLanes struct {
	xx, yy, xy, dd, most [8]float64 // most: the largest (x−y)²
	top                  [8]uint32  // bits of the largest |x|
	zeros                int64
}

func compareGeneric(x, y []float32) Comparison {
	var l compareLanes
	return l.finish(x, y)
}

// finish adds what a vector kernel has left and folds the lanes.
func (l *compareLanes) finish(x, y []float32) Comparison {
	for i, v := range x {
		a, b := float64(v), float64(y[i])
		d := (a - b) * (a - b)
		k := i % 8
		l.xx[k] += float64(a * a)
		l.yy[k] += float64(b * b)
		l.xy[k] += float64(a * b)
		l.dd[k] += float64(d)
		l.most[k] = max(l.most[k], d)
		l.top[k] = max(l.top[k], math.Float32bits(v)&^(1<<31))
		if b == 0 {
			l.zeros++
		}
	}
	for h := 4; h > 0; h /= 2 {
		for k := range h {
			l.xx[k] += l.xx[k+h]
			l.yy[k] += l.yy[k+h]
			l.xy[k] += l.xy[k+h]
			l.dd[k] += l.dd[k+h]
			l.most[k] = max(l.most[k], l.most[k+h])
			l.top[k] = max(l.top[k], l.top[k+h])
		}
	}
	return Comparison{XX: l.xx[0], YY: l.yy[0], XY: l.xy[0], DD: l.dd[0],
		MaxD: math.Sqrt(l.most[0]), // the square of a difference of two float32 is in float64's range: the root gives it back
		MaxX: math.Float32frombits(l.top[0]), Zeros: int(l.zeros)}
}

// Outside counts the elements of x that lie below lo or above hi: one bound for all, or one for each element. NaN does not.
func Outside(x, lo, hi []float32) int {
	if len(lo) != 1 || len(hi) != 1 {
		same("Outside: bounds", len(x), len(lo), len(hi))
	}
	return cur.outside(x, lo, hi)
}

func outsideGeneric(x, lo, hi []float32) (n int) {
	if len(lo) == 1 {
		low, high := lo[0], hi[0]
		for _, v := range x {
			if v < low || v > high {
				n++
			}
		}
		return n
	}
	for i, v := range x {
		if v < lo[i] || v > hi[i] {
			n++
		}
	}
	return n
}
