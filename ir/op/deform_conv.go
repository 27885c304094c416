package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

var deformConvDef = &Def{
	Name: "DeformConv", Doc: "a convolution whose kernel positions are shifted by offsets, read between elements linearly", Since: 19,
	Versions: []int{19, 22}, Types: "float, double, float16, bfloat16", In: Between(3, 5), Out: Exactly(1), Widen: true,
	Infer: func(c *Call) ([]ir.Type, error) { return inferConv(c, 0, 1) },
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		return evalFloat(c, []int{1, 2, 3, 4}, deformConv[float32], deformConv[float64])
	},
}

func deformConv[T floatElem](c *Call) ([]*ir.Tensor, error) {
	v, err := convolutionOf(c.Node, c.In[0].Shape(), c.In[1].Shape())
	if err != nil {
		return nil, err
	}
	rank, channels := len(v.in), v.groups*v.cg
	if rank > maxSampled {
		return nil, fmt.Errorf("%d spatial axes, more than %d: %w", rank, maxSampled, ErrUnsupported)
	}
	sets := int(c.Node.Int("offset_group", 1)) // channels of one set share their offsets
	if sets < 1 || channels%sets != 0 {
		return nil, fmt.Errorf("attribute offset_group is %d, wants a divisor of the %d channels", sets, channels)
	}
	want := append([]int{v.batch, sets * v.taps * rank}, v.out...)
	if s := c.In[2].Shape(); fmt.Sprint(s) != fmt.Sprint(want) {
		return nil, fmt.Errorf("the offset has shape %v, wants %v", s, want)
	}
	want[1] = sets * v.taps
	if c.Has(4) && fmt.Sprint(c.In[4].Shape()) != fmt.Sprint(want) {
		return nil, fmt.Errorf("the mask has shape %v, wants %v", c.In[4].Shape(), want)
	}
	bias, err := vector[T](c, 3, v.groups*v.mg, "the bias")
	if err != nil {
		return nil, err
	}
	out, err := c.New(c.In[0].Elem(), v.shape()...)
	if err != nil {
		return nil, err
	}
	if out.Len() == 0 {
		return []*ir.Tensor{out}, nil
	}
	v.tables()
	x, w, y := ir.Data[T](c.In[0]), ir.Data[T](c.In[1]), ir.Data[T](out)
	offset, mask := ir.Data[T](c.In[2]), optional[T](c, 4)
	places := positionsOf(v.out)
	depth, n := v.cg*v.taps, v.positions
	scratch, err := c.New(c.In[0].Elem(), depth, n)
	if err != nil {
		return nil, err
	}
	cols := ir.Data[T](scratch)
	for i := range v.batch * v.groups {
		b, g := i/v.groups, i%v.groups
		par.For(depth, 1+(1<<12)/(n+1), func(lo, hi int) {
			at := make([]float64, rank)
			for r := lo; r < hi; r++ {
				ch, tap := g*v.cg+r/v.taps, r%v.taps
				set := (b*sets+ch/(channels/sets))*v.taps + tap
				plane := x[(b*channels+ch)*v.size:][:v.size]
				for p := range n {
					for d := range rank {
						base := places[p*rank+d]*v.w.stride[d] - v.w.before[d] + v.kernelAt[tap*rank+d]*v.w.dilation[d]
						at[d] = float64(base) + float64(offset[(set*rank+d)*n+p])
					}
					s := sampleLinear(plane, v.in, at)
					if mask != nil {
						s *= float64(mask[set*n+p])
					}
					cols[r*n+p] = T(s)
				}
			}
		})
		dst := y[i*v.mg*n:][:v.mg*n]
		if len(dst) > 0 {
			multiply(v.mg, n, depth, w[g*v.mg*depth:], depth, false, cols, n, dst, n)
		}
		for m := range v.mg {
			if bias != nil {
				addScalar(dst[m*n:(m+1)*n], bias[g*v.mg+m])
			}
		}
	}
	return []*ir.Tensor{out}, nil
}

// sampleLinear reads a plane of the given sizes at a fractional position, linearly between the 2^rank elements around it;
// elements outside the plane are zero.
func sampleLinear[T floatElem](plane []T, sizes []int, at []float64) float64 {
	for d, p := range at {
		if !(p > -1 && p < float64(sizes[d])) {
			return 0
		}
	}
	sum := 0.0
	for corner := range 1 << len(sizes) {
		weight, index := 1.0, 0
		for d, p := range at {
			low := math.Floor(p)
			k, f := int(low), p-low
			if corner>>d&1 == 1 {
				k++
			} else {
				f = 1 - f
			}
			if k < 0 || k >= sizes[d] {
				weight = 0
				break
			}
			weight *= f
			index = index*sizes[d] + k
		}
		if weight != 0 {
			sum += weight * float64(plane[index])
		}
	}
	return sum
}
