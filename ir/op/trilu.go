package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
)

var triluDef = &Def{
	Name: "Trilu", Doc: "the upper or lower triangle of its matrices, zero elsewhere", Since: 14, Versions: []int{14}, Types: "all",
	In: Between(1, 2), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) {
		x := c.Type(0)
		if x.Ranked && len(x.Dims) < 2 {
			return nil, fmt.Errorf("input is %v, wants at least two dimensions", x)
		}
		return []ir.Type{x}, nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		x := c.In[0]
		s := x.Shape()
		if len(s) < 2 {
			return nil, fmt.Errorf("input is %v, wants at least two dimensions", x.Type())
		}
		rows, cols := s[len(s)-2], s[len(s)-1]
		k := 0
		if c.Has(1) {
			v, ok := c.ConstInts(1)
			if !ok || len(v) != 1 {
				return nil, fmt.Errorf("k (input 1) is %v, wants one integer", c.Type(1))
			}
			k = int(min(max(v[0], int64(-rows)), int64(cols)))
		}
		upper := c.Node.Int("upper", 1) != 0
		return one(move(c, x.Elem(), s, []*ir.Tensor{x}, func(dst []byte, src [][]byte, w int) {
			row := cols * w
			for i := 0; row > 0 && i < len(dst)/row; i++ {
				d := dst[i*row : (i+1)*row]
				copy(d, src[0][i*row:])
				at := i%rows + k
				if upper {
					clear(d[:min(max(at, 0), cols)*w])
				} else {
					clear(d[min(max(at+1, 0), cols)*w:])
				}
			}
		}))
	},
}

var eyeLikeDef = &Def{
	Name: "EyeLike", Doc: "a matrix of its input's shape with ones on a diagonal", Since: 9, Versions: []int{9, 22},
	Types: "all integers and floats down to 8 bits, bool",
	In:    Exactly(1), Out: Exactly(1),
	Infer: func(c *Call) ([]ir.Type, error) {
		x := c.Type(0)
		if x.Ranked && len(x.Dims) != 2 {
			return nil, fmt.Errorf("input is %v, wants two dimensions", x)
		}
		elem, err := elemAttr(c.Node, "dtype", x.Elem)
		return []ir.Type{{Elem: elem, Ranked: x.Ranked, Dims: cloneDims(x.Dims)}}, err
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		s := c.In[0].Shape()
		if len(s) != 2 {
			return nil, fmt.Errorf("input is %v, wants two dimensions", c.In[0].Type())
		}
		elem, err := elemAttr(c.Node, "dtype", c.In[0].Elem())
		if err != nil {
			return nil, err
		}
		unit, err := unitOf(elem)
		if err != nil {
			return nil, err
		}
		out, err := c.New(elem, s...)
		if err != nil {
			return nil, err
		}
		b, w, k := out.Bytes(), len(unit), c.Node.Int("k", 0)
		clear(b)
		for i := 0; i < s[0] && s[1] > 0; i++ {
			if j := int64(i) + k; j >= 0 && j < int64(s[1]) {
				copy(b[(i*s[1]+int(j))*w:], unit)
			}
		}
		return []*ir.Tensor{out}, nil
	},
}

// unitOf returns the bytes of the number 1.
func unitOf(elem ir.DType) ([]byte, error) {
	switch elem {
	case ir.Float32:
		return []byte{0, 0, 0x80, 0x3f}, nil
	case ir.Float64:
		return []byte{0, 0, 0, 0, 0, 0, 0xf0, 0x3f}, nil
	case ir.Float16:
		return []byte{0, 0x3c}, nil
	case ir.BFloat16:
		return []byte{0x80, 0x3f}, nil
	}
	if elem == ir.Bool || elem.IsInt() && elem.Bits() >= 8 {
		b := make([]byte, elem.Bits()/8)
		b[0] = 1
		return b, nil
	}
	return nil, fmt.Errorf("type %v: %w", elem, ErrUnsupported)
}
