package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// ONNX Runtime's fused normalizations. SimplifiedLayerNormalization is its name for RMSNormalization; files have it in the
// default domain.

var simplifiedLayerNormalizationDef = &Def{
	Name: "SimplifiedLayerNormalization", Doc: "x/√(mean(x²) + epsilon)·scale over the axes from axis on (ONNX Runtime's, in the default domain)", Since: 1,
	Versions: []int{1}, Types: floatTypes, In: Exactly(2), Out: Between(1, 2), Widen: true,
	Infer: func(c *Call) ([]ir.Type, error) {
		x := c.Type(0)
		stat := ir.Type{Elem: stashType(c.Node)}
		if x.Ranked {
			axis, err := Axis(c.Node.Int("axis", -1), len(x.Dims))
			if err != nil {
				return nil, err
			}
			dims := cloneDims(x.Dims)
			for i := axis; i < len(dims); i++ {
				dims[i] = ir.FixedDim(1)
			}
			stat = ir.TensorType(stat.Elem, dims...)
		}
		if e := c.Type(1).Elem; e != ir.Undefined {
			x.Elem = e
		}
		return []ir.Type{x, stat}, nil
	},
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		out, err := rmsNormalizationDef.Eval(c)
		if err != nil || !c.HasOut(1) {
			return out, err
		}
		x := c.In[0]
		axis, err := Axis(c.Node.Int("axis", -1), x.Rank())
		if err != nil {
			return nil, err
		}
		v, _ := x.Float32s()
		shape := append([]int{}, x.Shape()...)
		for i := axis; i < len(shape); i++ {
			shape[i] = 1
		}
		inv := inverseRMS(product(shape), product(x.Shape()[axis:]), v, c.Node.Float("epsilon", 1e-5))
		return append(out, floatAs(ir.Floats(inv, shape...), stashType(c.Node))), nil
	},
}

// inverseRMS returns 1/√(mean(x²) + eps) of each row.
func inverseRMS(rows, cols int, x []float32, eps float32) []float32 {
	inv := make([]float32, rows)
	for r := range inv {
		inv[r] = float32(1 / math.Sqrt(variance(x[r*cols:(r+1)*cols], 0)+float64(eps)))
	}
	return inv
}

// skipNorm defines a normalization over the last axis of input + skip (+ bias): outputs the result, mean and inverse
// deviation of each row, and the sum. gamma is input 2, beta (if any) and bias the inputs at the given slots.
func skipNorm(name, doc string, beta, bias int, in Arity) *Def {
	return &Def{
		Domain: Microsoft, Name: name, Doc: doc, Since: 1, Versions: []int{1}, Types: "float, float16, bfloat16", In: in, Out: Between(1, 4), Widen: true,
		Infer: func(c *Call) ([]ir.Type, error) {
			x := c.Type(0)
			stat := ir.Type{Elem: ir.Float32}
			if n := len(x.Dims); x.Ranked && n > 0 {
				dims := cloneDims(x.Dims)
				dims[n-1] = ir.FixedDim(1)
				stat = ir.TensorType(ir.Float32, dims...)
			}
			return []ir.Type{x, stat, stat, x}, nil
		},
		Eval: func(c *Call) ([]*ir.Tensor, error) {
			x := c.In[0]
			if x.Elem() != ir.Float32 {
				return nil, badType(c, 0)
			}
			if err := sameElem(c, 1, 2, 3, 4); err != nil {
				return nil, err
			}
			s := x.Shape()
			if len(s) == 0 {
				return nil, fmt.Errorf("the input is a scalar, wants at least one axis")
			}
			cols := s[len(s)-1]
			rows := product(s[:len(s)-1])
			skip := c.In[1].Shape()
			period := product(skip) // elements after which skip starts again
			if len(skip) == 0 || skip[len(skip)-1] != cols || period == 0 != (rows*cols == 0) || period > 0 && rows*cols%period != 0 {
				return nil, fmt.Errorf("skip has shape %v, which does not broadcast to %v", skip, s)
			}
			gamma, err := vector[float32](c, 2, cols, "gamma")
			if err != nil {
				return nil, err
			}
			shift := make([]float32, cols)
			if beta >= 0 && c.Has(beta) {
				if shift, err = vector[float32](c, beta, cols, "beta"); err != nil {
					return nil, err
				}
			}
			b, err := vector[float32](c, bias, cols, "the bias")
			if err != nil {
				return nil, err
			}
			sum, err := c.Like(x, ir.Float32)
			if err != nil {
				return nil, err
			}
			out, err := c.Like(x, ir.Float32)
			if err != nil {
				return nil, err
			}
			u, v, w := ir.Data[float32](x), ir.Data[float32](c.In[1]), ir.Data[float32](sum)
			par.For(rows, max(1, chunk/max(cols, 1)), func(lo, hi int) {
				for r := lo; r < hi; r++ {
					row, at := w[r*cols:(r+1)*cols], r*cols%period
					kernel.Add(row, u[r*cols:(r+1)*cols], v[at:at+cols])
					if b != nil {
						kernel.Add(row, row, b)
					}
				}
			})
			shape := append([]int{}, s...)
			shape[len(s)-1] = 1
			eps := c.Node.Float("epsilon", 1e-12)
			var mu, inv []float32
			if c.HasOut(1) || c.HasOut(2) {
				mu, inv = make([]float32, rows), make([]float32, rows)
			}
			if beta >= 0 {
				kernel.LayerNorm(rows, cols, ir.Data[float32](out), w, gamma, shift, eps, mu, inv)
			} else {
				kernel.RMSNorm(rows, cols, ir.Data[float32](out), w, gamma, eps)
				if inv != nil {
					inv = inverseRMS(rows, cols, w, eps)
				}
			}
			results := []*ir.Tensor{out, nil, nil, sum}
			for i, stat := range [][]float32{mu, inv} {
				if stat != nil {
					results[1+i] = ir.Floats(stat, shape...)
				}
			}
			return results, nil
		},
	}
}

var skipLayerNormalizationDef = skipNorm("SkipLayerNormalization", "LayerNormalization of input + skip + bias", 3, 4, Between(3, 5))

var skipSimplifiedLayerNormalizationDef = skipNorm("SkipSimplifiedLayerNormalization", "RMSNormalization of input + skip + bias", -1, 3, Between(3, 4))

var embedLayerNormalizationDef = &Def{
	Domain: Microsoft, Name: "EmbedLayerNormalization", Doc: "LayerNormalization of the sum of word, position and segment embeddings", Since: 1,
	Versions: []int{1}, Types: "float, float16", In: Between(7, 9), Optional: []int{1, 4}, Out: Between(1, 3), Widen: true,
	Infer: func(c *Call) ([]ir.Type, error) {
		ids, word := c.Type(0), c.Type(2)
		t, mask := ir.Type{Elem: word.Elem}, ir.Type{Elem: ir.Int32}
		if ids.Ranked {
			if len(ids.Dims) != 2 {
				return nil, fmt.Errorf("input_ids is %v, wants [batch, sequence]", ids)
			}
			t = ir.TensorType(word.Elem, ids.Dims[0], ids.Dims[1], word.Dim(1))
			mask = ir.TensorType(ir.Int32, ids.Dims[0])
		}
		return []ir.Type{t, mask, t}, nil
	},
	Eval: evalEmbedLayerNorm,
}

func evalEmbedLayerNorm(c *Call) ([]*ir.Tensor, error) {
	ids, ok := c.ConstInts(0)
	if !ok || c.In[0].Rank() != 2 {
		return nil, fmt.Errorf("input_ids is %v, wants integers [batch, sequence]", c.In[0].Type())
	}
	batch, seq := c.In[0].Shape()[0], c.In[0].Shape()[1]
	table := func(i int, what string) ([]float32, int, int, error) {
		if !c.Has(i) {
			return nil, 0, 0, nil
		}
		t := c.In[i]
		if t.Rank() != 2 || t.Elem() != ir.Float32 {
			return nil, 0, 0, fmt.Errorf("%s is %v, wants a float matrix", what, t.Type())
		}
		return ir.Data[float32](t), t.Shape()[0], t.Shape()[1], nil
	}
	word, words, size, err := table(2, "word_embedding")
	if err != nil {
		return nil, err
	}
	position, positions, size2, err := table(3, "position_embedding")
	if err != nil {
		return nil, err
	}
	segment, segments, size3, err := table(4, "segment_embedding")
	if err != nil {
		return nil, err
	}
	if word == nil || position == nil || size2 != size || segment != nil && size3 != size {
		return nil, fmt.Errorf("embeddings have rows of %d, %d and %d elements, wants one length", size, size2, size3)
	}
	gamma, err := vector[float32](c, 5, size, "gamma")
	if err != nil {
		return nil, err
	}
	beta, err := vector[float32](c, 6, size, "beta")
	if err != nil {
		return nil, err
	}
	if gamma == nil || beta == nil {
		return nil, fmt.Errorf("gamma and beta (inputs 5 and 6) are required")
	}
	segmentIDs, _ := c.ConstInts(1)
	positionIDs, _ := c.ConstInts(8)
	if c.Has(1) && (segment == nil || len(segmentIDs) != len(ids)) || c.Has(8) && len(positionIDs) != len(ids) && len(positionIDs) != seq {
		return nil, fmt.Errorf("segment_ids or position_ids do not fit input_ids %v", c.In[0].Shape())
	}
	sum, err := c.New(ir.Float32, batch, seq, size)
	if err != nil {
		return nil, err
	}
	out, err := c.New(ir.Float32, batch, seq, size)
	if err != nil {
		return nil, err
	}
	w := ir.Data[float32](sum)
	for i, id := range ids {
		pos, seg := int64(i%max(seq, 1)), int64(0)
		if len(positionIDs) > 0 {
			pos = positionIDs[i%len(positionIDs)]
		}
		if len(segmentIDs) > 0 {
			seg = segmentIDs[i]
		}
		for _, k := range []struct {
			what string
			id   int64
			n    int
		}{{"input_ids", id, words}, {"position", pos, positions}, {"segment_ids", seg, segments}} {
			if k.what == "segment_ids" && segment == nil {
				continue
			}
			if k.id < 0 || k.id >= int64(k.n) {
				return nil, fmt.Errorf("%s %d of element %d is outside the %d rows of its embedding", k.what, k.id, i, k.n)
			}
		}
		row := w[i*size : (i+1)*size]
		kernel.Add(row, word[int(id)*size:][:size], position[int(pos)*size:][:size])
		if segment != nil {
			kernel.Add(row, row, segment[int(seg)*size:][:size])
		}
	}
	kernel.LayerNorm(len(ids), size, ir.Data[float32](out), w, gamma, beta, c.Node.Float("epsilon", 1e-12), nil, nil)
	counts := ir.NewTensor(ir.Int32, batch)
	if mask, ok := c.ConstInts(7); ok && c.Has(7) {
		if len(mask) != len(ids) {
			return nil, fmt.Errorf("the mask has shape %v, wants %v", c.In[7].Shape(), c.In[0].Shape())
		}
		for i, m := range mask {
			if m == 1 {
				ir.Data[int32](counts)[i/seq]++
			}
		}
	}
	return []*ir.Tensor{out, counts, sum}, nil
}
