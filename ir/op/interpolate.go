package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// taps are the inputs and weights of each place of an axis, n apiece; indices outside are clamped to the border.
type taps struct {
	n int
	i []int
	w []float64
}

func (r *resizer) taps(a resizeAxis) taps {
	scale := 1.0
	if r.antialias {
		scale = min(a.scale, 1)
	}
	reach := 1.0
	if r.mode == "cubic" {
		reach = 2
	}
	lo := int(math.Floor(-reach/scale)) + 1
	n := 2 - 2*lo
	t := taps{n, make([]int, n*a.out), make([]float64, n*a.out)}
	for o := range a.out {
		x := r.source(a, o)
		base := math.Floor(x)
		sum := 0.0
		for k := range n {
			at := int(base) + lo + k
			d := math.Abs((float64(lo+k) - (x - base)) * scale)
			w := max(0, 1-d)
			if r.mode == "cubic" {
				w = cubicWeight(d, r.a)
			}
			if r.exclude && (at < 0 || at >= a.in) {
				w = 0
			}
			sum += w
			t.i[o*n+k] = min(max(at, 0), a.in-1)
			t.w[o*n+k] = w
		}
		if (r.exclude || r.antialias) && sum != 0 {
			for k := range n {
				t.w[o*n+k] /= sum
			}
		}
	}
	return t
}

// cubicWeight is the cubic convolution kernel of Keys (1981), equation (4), at distance d with parameter a.
func cubicWeight(d, a float64) float64 {
	switch {
	case d <= 1:
		return ((a+2)*d-(a+3))*d*d + 1
	case d < 2:
		return ((a*d-5*a)*d+8*a)*d - 4*a
	}
	return 0
}

func (r *resizer) interpolate(c *Call, x *ir.Tensor, axes []resizeAxis, shape []int) (*ir.Tensor, error) {
	elem := x.Elem()
	if elem == ir.Float64 {
		out, err := c.New(elem, shape...)
		if err != nil {
			return nil, err
		}
		copy(ir.Data[float64](out), r.separable64(ir.Data[float64](x), x.Shape(), axes))
		return r.extrapolate(out, axes)
	}
	v, ok := x.Float32s()
	if !ok || !elem.IsFloat() && (!elem.IsInt() || elem.Bits() > 32) {
		return nil, fmt.Errorf("mode %q of type %v: %w", r.mode, elem, ErrUnsupported)
	}
	cur := append([]int{}, x.Shape()...)
	for k := len(axes) - 1; k >= 0; k-- {
		if axes[k].identity {
			continue
		}
		outer, inner := product(cur[:k]), product(cur[k+1:])
		cur[k] = axes[k].out
		dst, err := c.New(ir.Float32, cur...)
		if err != nil {
			return nil, err
		}
		along(ir.Data[float32](dst), v, outer, axes[k].in, axes[k].out, inner, r.taps(axes[k]))
		v = ir.Data[float32](dst)
	}
	out, err := r.extrapolate(ir.Floats(v, shape...), axes)
	if err != nil || elem == ir.Float32 {
		return out, err
	}
	if isHalf(elem) {
		return narrow(out, elem), nil
	}
	res, err := c.New(elem, shape...)
	if err != nil {
		return nil, err
	}
	switch elem {
	case ir.Int8:
		truncateTo(ir.Data[int8](res), v, math.MinInt8, math.MaxInt8)
	case ir.Uint8:
		truncateTo(ir.Data[uint8](res), v, 0, math.MaxUint8)
	case ir.Int16:
		truncateTo(ir.Data[int16](res), v, math.MinInt16, math.MaxInt16)
	case ir.Uint16:
		truncateTo(ir.Data[uint16](res), v, 0, math.MaxUint16)
	case ir.Int32:
		truncateTo(ir.Data[int32](res), v, math.MinInt32, math.MaxInt32)
	default:
		return nil, fmt.Errorf("mode %q of type %v: %w", r.mode, elem, ErrUnsupported)
	}
	return res, nil
}

// truncateTo converts towards zero, saturating.
func truncateTo[T int8 | uint8 | int16 | uint16 | int32](dst []T, v []float32, lo, hi float64) {
	for i, x := range v {
		dst[i] = T(min(max(float64(x), lo), hi))
	}
}

// along interpolates [outer, in, inner] to [outer, out, inner].
func along(dst, src []float32, outer, in, out, inner int, t taps) {
	w := make([]float32, len(t.w))
	for i, x := range t.w {
		w[i] = float32(x)
	}
	if inner == 1 {
		par.For(outer, max(1, 1<<13/max(out*t.n, 1)), func(lo, hi int) {
			for o := lo; o < hi; o++ {
				row, from := dst[o*out:(o+1)*out], src[o*in:(o+1)*in]
				if t.n == 2 {
					w, at := w[:2*len(row)], t.i[:2*len(row)]
					for i := range row {
						row[i] = float32(w[2*i]*from[at[2*i]]) + float32(w[2*i+1]*from[at[2*i+1]])
					}
					continue
				}
				for i := range row {
					s := float32(0)
					for k := i * t.n; k < (i+1)*t.n; k++ {
						s += float32(w[k] * from[t.i[k]])
					}
					row[i] = s
				}
			}
		})
		return
	}
	par.For(outer*out, max(1, 1<<13/max(inner*t.n, 1)), func(lo, hi int) {
		for q := lo; q < hi; q++ {
			o, i := q/out, q%out
			row := dst[q*inner : (q+1)*inner]
			if t.n == 2 {
				a, b := src[(o*in+t.i[2*i])*inner:][:len(row)], src[(o*in+t.i[2*i+1])*inner:][:len(row)]
				wa, wb := w[2*i], w[2*i+1]
				for j := range row {
					row[j] = float32(wa*a[j]) + float32(wb*b[j])
				}
				continue
			}
			for k := i * t.n; k < (i+1)*t.n; k++ {
				from, wk := src[(o*in+t.i[k])*inner:][:len(row)], w[k]
				if k == i*t.n {
					for j := range row {
						row[j] = wk * from[j]
					}
					continue
				}
				for j := range row {
					row[j] += float32(wk * from[j])
				}
			}
		}
	})
}

// separable64 is the double-precision form of what interpolate does axis by axis.
func (r *resizer) separable64(v []float64, in []int, axes []resizeAxis) []float64 {
	cur := append([]int{}, in...)
	for k := len(axes) - 1; k >= 0; k-- {
		a := axes[k]
		if a.identity {
			continue
		}
		t := r.taps(a)
		outer, inner := product(cur[:k]), product(cur[k+1:])
		cur[k] = a.out
		dst := make([]float64, product(cur))
		for q := range outer * a.out {
			o, i := q/a.out, q%a.out
			for k := i * t.n; k < (i+1)*t.n; k++ {
				for j := range inner {
					dst[q*inner+j] += float64(t.w[k] * v[(o*a.in+t.i[k])*inner+j])
				}
			}
		}
		v = dst
	}
	return v
}
