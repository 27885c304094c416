package frontend

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/qsimc/qsimc/ir"
)

// What synthetic samples are like where neither model nor options say.
const (
	syntheticCount = 8
	syntheticSize  = 8 // of free dimensions that are not the leading one
)

// synthetic makes random samples: the i-th one depends on seed, i and the inputs only.
func synthetic(m *ir.Model, o DataOptions) (*Data, error) {
	inputs := m.Graph.FreeInputs()
	count := o.Count
	if count == 0 {
		count = syntheticCount
	}
	batch := max(o.Batch, 1)
	if b := leading(m); b > 0 {
		if o.Batch > 0 && o.Batch != b {
			return nil, fmt.Errorf("a batch of %d was asked for, the model takes %d", o.Batch, b)
		}
		batch = b
	}
	shapes := make([][]int, len(inputs))
	for i, v := range inputs {
		if !v.Type.Ranked || v.Type.Kind != ir.TensorKind {
			return nil, fmt.Errorf("input %q: no synthetic samples for type %v", v.Name, v.Type)
		}
		shapes[i] = []int{}
		for k, d := range v.Type.Dims {
			switch {
			case d.Known():
				shapes[i] = append(shapes[i], int(d.Size))
			case k == 0:
				shapes[i] = append(shapes[i], batch)
			default:
				shapes[i] = append(shapes[i], syntheticSize)
			}
		}
		if n, err := ir.Numel(shapes[i]); err != nil || n > 1<<28 {
			return nil, fmt.Errorf("input %q: %v is too large for synthetic samples", v.Name, v.Type)
		}
		if _, err := random(v, []int{0}, nil); err != nil {
			return nil, err
		}
	}
	runs := (count + batch - 1) / batch
	return &Data{Len: runs, feeds: func(yield func(Feed, error) bool) {
		for i := range runs {
			f := Feed{Tensors: ir.Tensors{}, N: min(batch, count-i*batch)}
			r := rand.New(rand.NewPCG(o.Seed, uint64(i)))
			for k, v := range inputs {
				t, err := random(v, shapes[k], r)
				if err != nil {
					yield(Feed{}, err)
					return
				}
				f.Tensors[v.Name] = t
			}
			if !yield(f, nil) {
				return
			}
		}
	}}, nil
}

// random makes a tensor: normal floats, integers and booleans 0 or 1, an attention mask of ones, positions 0, 1, 2, …
func random(v *ir.Value, shape []int, r *rand.Rand) (*ir.Tensor, error) {
	if len(shape) > 0 && (v.Name == maskInput || v.Name == positionInput) {
		return filled(v, shape)
	}
	elem := v.Type.Elem
	width := elem.Bits() / 8
	if width == 0 || !elem.IsInt() && elem != ir.Bool && elem != ir.Float32 && elem != ir.Float64 && elem != ir.Float16 && elem != ir.BFloat16 {
		return nil, fmt.Errorf("input %q: no synthetic samples for type %v", v.Name, v.Type)
	}
	t := ir.NewTensor(elem, shape...)
	b := t.Bytes()
	for i := range t.Len() {
		at := b[i*width:]
		switch elem {
		case ir.Float32:
			binary.LittleEndian.PutUint32(at, math.Float32bits(float32(r.NormFloat64())))
		case ir.Float64:
			binary.LittleEndian.PutUint64(at, math.Float64bits(r.NormFloat64()))
		case ir.BFloat16:
			binary.LittleEndian.PutUint16(at, uint16(math.Float32bits(float32(r.NormFloat64()))>>16))
		case ir.Float16: // either sign, magnitudes from 1/32 to 2
			binary.LittleEndian.PutUint16(at, uint16(r.Uint32N(2)<<15|(10+r.Uint32N(6))<<10|r.Uint32N(1<<10)))
		default:
			at[0] = byte(r.Uint32N(2))
		}
	}
	return t, nil
}
