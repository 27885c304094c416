// Package numfmt knows every number format of the compiler: its grid, how scales are grouped, how a value is rounded
// onto the grid, and how codes are packed into bytes. It holds the module's only quantize–dequantize code: the
// FakeQuant operator, Quantize/DequantizeLinear, Cast, GPTQ and the weight encoder all call it.
//
// A scheme is text, a layout places it on a tensor, parameters are fitted to ranges or data, and Apply simulates:
//
//	s, err := numfmt.ParseScheme("int4/block=64/scale=bf16", numfmt.Weight)
//	l, err := s.Layout([]int{768, 3072}, numfmt.Axes{K: 0, Out: 1})
//	p, err := s.FitData(w, l)
//	err = s.Apply(dst, w, l, p)        // simulated: float32 in, float32 on the grid out
//	c, err := s.Encode(w, l, p)        // stored: packed codes of an ONNX element type
//
// Arithmetic is float32 in ONNX order: the step is amax/qmax, a code is x divided by the step, rounded to nearest with
// ties to even and saturated, and the value is the code times the step; each operation rounds to float32. Integer
// formats never give -0 and read NaN as 0; float formats keep -0. See METHODS.md §0 to §4.
package numfmt
