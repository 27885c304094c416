package numfmt

import "slices"

// Element is the format of a block preset's elements as a format of its own: e2m1 of mxfp4. Other formats are their own.
func (f Format) Element() Format {
	if f.Block == 0 {
		return f
	}
	for _, row := range table {
		g := f
		g.Name, g.Block, g.BlockScale = row.Name, 0, ScaleDefault
		if g == row {
			return row
		}
	}
	panic("BUG: numfmt: preset " + f.Name + " has no element format")
}

// Spread writes static block scales that all rows of an activation share as scales per index of the block axis: index i
// has the parameters of block i/Block. The scheme it returns is per axis and rounds as the block scheme does; QuantizeLinear
// can say it of tensors whose other dimensions are not known. p has one entry for each block.
func (s Scheme) Spread(p Params, axis, length int) (Scheme, Params) {
	each := func(v []float32) []float32 {
		if v == nil {
			return nil
		}
		out := make([]float32, length)
		for i := range out {
			out[i] = v[i/s.Block]
		}
		return out
	}
	q := Params{Scale: each(p.Scale), Zero: each(p.Zero), Code: each(p.Code), Coarse: slices.Clone(p.Coarse)}
	s.Format, s.Gran, s.Axis, s.Block = s.Format.Element(), PerAxis, axis, 0
	return s, q
}
