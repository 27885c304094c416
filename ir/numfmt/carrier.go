package numfmt

import "fmt"

// Carrier says how Quantize/DequantizeLinear can hold a scheme's numbers (METHODS §1.7).
type Carrier struct {
	Elem  Elem // of the codes
	Opset int  // the first opset whose operators have the types and the granularity
	Scale Elem // of the stored scales: FLOAT or FLOAT8E8M0; for Kind Cast, which has none, ElemNone
	// Inner is the type of the block scales of a two-level scheme, which are themselves dequantized by the coarse
	// scales; ElemNone for others. Where it has no such type, or scales are dynamic, scales are plain FLOAT.
	Inner Elem
	// Clip tells that the element type has codes beyond the scheme's range, so x needs a Clip to ±qmax·scale before
	// QuantizeLinear wherever scales can be below the largest magnitude.
	Clip bool
	// Factor is what the scheme's scale is multiplied by: 0.5 for e1m2 in INT4, else 1.
	Factor float32
}

// Carriers lists the ways in which ONNX can hold the scheme, the smallest storage first: INT2 from opset 25, INT4 from
// opset 21, INT8 from opset 10, and so on. The error says why there is none; METHODS §4.1's subgraphs remain then.
func (s Scheme) Carriers() ([]Carrier, error) {
	f := s.Format
	switch {
	case s.IsNone():
		return nil, fmt.Errorf("scheme none needs no carrier")
	case f.Kind == Cast:
		return []Carrier{{Elem: f.Elem, Opset: f.Opset, Factor: 1}}, nil
	case f.Parity:
		return nil, fmt.Errorf("ONNX rounds half to even and saturates %s elsewhere than QPyTorch", f.Name[len("qpt-"):])
	case s.Arith == ArithTRT:
		return nil, fmt.Errorf("QuantizeLinear divides by the scale, arith=trt multiplies by its reciprocal")
	case f.Elem == ElemNone:
		return nil, fmt.Errorf("ONNX has no element type for %s", f.Name)
	case f.Kind == Ternary && s.Dynamic:
		return nil, fmt.Errorf("%s activations divide by another number than they multiply by", f.Name)
	}
	c := Carrier{Elem: f.Elem, Opset: f.Opset, Scale: ElemFloat, Factor: 1, Clip: s.clips(f.Elem)}
	if f.isCarried() {
		c.Factor = 0.5
	}
	if s.Scaled() {
		switch s.Gran {
		case PerAxis:
			c.Opset = max(c.Opset, 13)
		case PerBlock, PerToken:
			c.Opset = max(c.Opset, 21)
		}
	}
	if s.TwoLevel() && !s.Dynamic {
		c.Inner = ElemUint8
		switch {
		case s.Scale.relative() && s.Scale != ScaleUE5M3:
			c.Inner, c.Opset = ElemE4M3FN, max(c.Opset, 19)
		case s.Scale == ScaleUE5M3 || s.Scale2 > 8:
			c.Inner = ElemNone
		case s.Scale2 <= 4:
			c.Inner, c.Opset = ElemUint4, max(c.Opset, 21)
		}
	}
	var out []Carrier
	if s.Scale == ScaleE8M0 && !s.Dynamic {
		e := c
		e.Scale, e.Opset = ElemE8M0, 24
		out = append(out, e)
	}
	out = append(out, c)
	if f.Kind == Int || f.Kind == Ternary {
		for _, wide := range [...]Elem{ElemInt4, ElemInt8, ElemUint4, ElemUint8} {
			w, _ := wide.Format()
			if w.Signed != f.Signed || w.Bits <= f.Elem.Bits() {
				continue
			}
			e := c
			e.Elem, e.Clip, e.Opset = wide, true, w.Opset
			if s.Scaled() && s.Gran == PerAxis {
				e.Opset = max(e.Opset, 13)
			}
			if s.Gran == PerBlock || s.Gran == PerToken || c.Inner == ElemUint4 {
				e.Opset = max(e.Opset, 21)
			}
			out = append(out, e)
		}
	}
	return out, nil
}

// clips reports whether the element type has codes that the scheme does not use.
func (s Scheme) clips(e Elem) bool {
	f, ok := e.Format()
	if !ok || f.Kind != Int {
		return false
	}
	if s.Format.isCarried() {
		return true // INT4 has -8
	}
	lo, hi := s.Codes()
	tlo, thi := f.fullRange()
	return lo > tlo || hi < thi
}

// BitsPerValue is the storage of one value of a tensor in the format's own bits, scales, zero points and chosen special
// values included: 4.25 for int4 with a bfloat16 scale for each 64.
func (s Scheme) BitsPerValue(l Layout) float64 {
	if s.IsNone() {
		return 32
	}
	if l.Len() == 0 {
		return float64(s.Format.Bits)
	}
	coarse := 0
	if s.TwoLevel() {
		coarse = l.coarseGroups()
	}
	return s.GroupedBits(l.Groups(), l.Len()) + 32*float64(coarse)/float64(l.Len())
}

// GroupedBits is BitsPerValue of values in groups that no layout describes, such as clusters of channels.
func (s Scheme) GroupedBits(groups, values int) float64 {
	return float64(s.Format.Bits) + s.groupBits()*float64(groups)/float64(values)
}

// NominalBits is BitsPerValue without a tensor at hand: blocks are full, and what is stored once per tensor, axis or
// token counts nothing.
func (s Scheme) NominalBits() float64 {
	switch {
	case s.IsNone():
		return 32
	case s.Gran == PerBlock:
		return float64(s.Format.Bits) + s.groupBits()/float64(s.Block)
	}
	return float64(s.Format.Bits)
}

// groupBits is what is stored for each group.
func (s Scheme) groupBits() float64 {
	bits := s.Scale.bits()
	if s.Scale2 > 0 {
		bits = float64(s.Scale2)
	}
	if s.Affine {
		bits += float64(s.Format.Bits)
	}
	if s.Format.Kind == Book && len(s.Format.Book.Specials) > 0 {
		bits += 2
	}
	return bits
}
