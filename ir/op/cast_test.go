package op_test

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
)

func castModel(x *ir.Tensor, to ir.DType, attrs ...ir.Attr) (*ir.Tensor, error) {
	tc := nodeCase{op: "Cast", opset: 28, in: []*ir.Tensor{x}, fed: 1, attrs: append(attrs, ir.IntAttr("to", int64(to)))}
	m, feed := tc.model()
	out, err := runModel(m, feed)
	return out["out0"], err
}

var castable = []ir.DType{
	ir.Float32, ir.Float64, ir.Float16, ir.BFloat16, ir.Float8E4M3FN, ir.Float8E4M3FNUZ, ir.Float8E5M2, ir.Float8E5M2FNUZ,
	ir.Float8E8M0, ir.Float6E2M3, ir.Float6E3M2, ir.Float4E2M1, ir.Int8, ir.Int16, ir.Int32, ir.Int64, ir.Uint8, ir.Uint16,
	ir.Uint32, ir.Uint64, ir.Int4, ir.Uint4, ir.Int2, ir.Uint2, ir.Bool,
}

// TestCastEveryPair takes 1, which every type has, through every pair of types; 301 elements, so that packed types end
// within a byte and a block of the conversion.
func TestCastEveryPair(t *testing.T) {
	t.Parallel()
	v := make([]float32, 301)
	for i := range v {
		v[i] = 1
	}
	for _, a := range castable {
		x, err := castModel(ir.Floats(v, 7, 43), a)
		if err != nil {
			t.Fatalf("to %v: %v", a, err)
		}
		if x.Elem() != a || fmt.Sprint(x.Shape()) != "[7 43]" {
			t.Fatalf("to %v: got %v", a, x.Type())
		}
		for _, b := range castable {
			y, err := castModel(x, b)
			if err != nil {
				t.Fatalf("%v to %v: %v", a, b, err)
			}
			z, err := castModel(y, ir.Float32)
			if err != nil {
				t.Fatalf("%v to float: %v", b, err)
			}
			for i, got := range ir.Data[float32](z) {
				if got != 1 {
					t.Fatalf("%v to %v to float: element %d is %v, want 1", a, b, i, got)
				}
			}
		}
	}
}

// TestCastSmallRoundTrip takes every code of the small types to float32 and back; NaN codes stay NaN. Saturation
// would lose infinities, rounding up the power 2⁻¹²⁷, which is subnormal in float32.
func TestCastSmallRoundTrip(t *testing.T) {
	t.Parallel()
	for _, e := range castable {
		if e.Bits() > 8 || e == ir.Bool {
			continue
		}
		n := 1 << e.Bits()
		codes := make([]byte, e.Size(n))
		for i := range n {
			at := i * e.Bits()
			w := uint16(i) << (at % 8)
			codes[at/8] |= byte(w)
			if at%8+e.Bits() > 8 {
				codes[at/8+1] |= byte(w >> 8)
			}
		}
		x, err := ir.TensorOf(e, []int{n}, codes)
		if err != nil {
			t.Fatal(err)
		}
		wide, err := castModel(x, ir.Float64)
		if err != nil {
			t.Fatal(err)
		}
		back, err := castModel(wide, e, ir.IntAttr("saturate", 0), ir.StringAttr("round_mode", "down"))
		if err != nil {
			t.Fatal(err)
		}
		again, err := castModel(back, ir.Float64)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range ir.Data[float64](wide) {
			if w := ir.Data[float64](again)[i]; v != w && (v == v || w == w) {
				t.Errorf("%v: code %d is %v, and %v after a round trip", e, i, v, w)
			}
		}
	}
}

func TestCastValues(t *testing.T) {
	t.Parallel()
	to := func(e ir.DType, more ...ir.Attr) []ir.Attr { return append(more, ir.IntAttr("to", int64(e))) }
	e8m0 := func(codes ...byte) *ir.Tensor { return packed(ir.Float8E8M0, []int{len(codes)}, codes...) }
	tiny := math.Ldexp(1, -30)
	checkCases(t, []nodeCase{
		{name: "truncates and wraps", op: "Cast", in: []*ir.Tensor{f32([]int{5}, -1.9, 300.5, nan32, inf32, -inf32)}, attrs: to(ir.Int64),
			want: []*ir.Tensor{i64([]int{5}, -1, 300, 0, math.MaxInt64, math.MinInt64)}},
		{name: "wraps", op: "Cast", in: []*ir.Tensor{f32([]int{3}, 300, -1, 127)}, attrs: to(ir.Int8), want: []*ir.Tensor{i8([]int{3}, 44, -1, 127)}},
		{name: "loses high bits", op: "Cast", in: []*ir.Tensor{i64([]int{2}, 200, -129)}, attrs: to(ir.Int8), want: []*ir.Tensor{i8([]int{2}, -56, 127)}},
		{name: "truth", op: "Cast", in: []*ir.Tensor{f32([]int{4}, 0, float32(math.Copysign(0, -1)), 0.1, nan32)}, attrs: to(ir.Bool), want: []*ir.Tensor{bools([]int{4}, false, false, true, true)}},
		{name: "one rounding only", op: "Cast", in: []*ir.Tensor{f64([]int{3}, 1+math.Ldexp(1, -11)+tiny, 1+math.Ldexp(1, -11), 65520)}, attrs: to(ir.Float16),
			want: []*ir.Tensor{half([]int{3}, 0x3c01, 0x3c00, 0x7c00)}},
		{name: "one rounding of long integers", op: "Cast", in: []*ir.Tensor{i64([]int{2}, 1<<62+1<<54+1, -(1<<62 + 1<<54))}, attrs: to(ir.BFloat16),
			want: []*ir.Tensor{ir.FromSlice(ir.BFloat16, []int{2}, []uint16{0x5e81, 0xde80})}},
		{name: "unsigned long", op: "Cast", in: []*ir.Tensor{f64([]int{2}, math.Ldexp(1.5, 63), 1e300)}, attrs: to(ir.Uint64),
			want: []*ir.Tensor{ir.FromSlice(ir.Uint64, []int{2}, []uint64{3 << 62, math.MaxInt64})}},
		{name: "saturates", op: "Cast", in: []*ir.Tensor{f32([]int{3}, 1000, -inf32, nan32)}, attrs: to(ir.Float8E4M3FN), want: []*ir.Tensor{packed(ir.Float8E4M3FN, []int{3}, 0x7e, 0xfe, 0x7f)}},
		{name: "does not saturate", op: "Cast", in: []*ir.Tensor{f32([]int{2}, 1000, -inf32)}, attrs: to(ir.Float8E5M2, ir.IntAttr("saturate", 0)), want: []*ir.Tensor{packed(ir.Float8E5M2, []int{2}, 0x64, 0xfc)}},
		{name: "powers up", op: "Cast", in: []*ir.Tensor{f32([]int{4}, 3, inf32, nan32, 0)}, attrs: to(ir.Float8E8M0), want: []*ir.Tensor{e8m0(129, 254, 255, 0)}},
		{name: "powers down", op: "Cast", in: []*ir.Tensor{f32([]int{1}, 3)}, attrs: to(ir.Float8E8M0, ir.StringAttr("round_mode", "down")), want: []*ir.Tensor{e8m0(128)}},
		{name: "powers nearest", op: "Cast", in: []*ir.Tensor{f32([]int{5}, 2.9, 3, 3e38, inf32, 0)}, attrs: to(ir.Float8E8M0, ir.StringAttr("round_mode", "nearest"), ir.IntAttr("saturate", 0)),
			want: []*ir.Tensor{e8m0(128, 129, 255, 255, 255)}},
		{name: "bad mode", op: "Cast", in: []*ir.Tensor{f32([]int{1}, 3)}, attrs: to(ir.Float8E8M0, ir.StringAttr("round_mode", "odd")), fails: "round_mode"},
		{name: "no type", op: "Cast", in: []*ir.Tensor{f32([]int{1}, 3)}, attrs: to(99), fails: "no element type"},
		{name: "nibbles wrap", op: "Cast", in: []*ir.Tensor{f32([]int{3}, 8, -9, 7)}, attrs: to(ir.Int4), want: []*ir.Tensor{packed(ir.Int4, []int{3}, 0x78, 0x07)}},
		{name: "nibbles saturated", op: "Cast", opset: 21, in: []*ir.Tensor{f32([]int{3}, 8, -9, 7)}, attrs: to(ir.Int4), want: []*ir.Tensor{packed(ir.Int4, []int{3}, 0x87, 0x07)}},
		{name: "to text", op: "Cast", in: []*ir.Tensor{f32([]int{7}, 0.1, 3, -2.5e-7, 1e20, inf32, -inf32, nan32)}, attrs: to(ir.String),
			want: []*ir.Tensor{text([]int{7}, "0.1", "3.0", "-2.5e-07", "1e+20", "INF", "-INF", "NaN")}},
		{name: "integers to text", op: "Cast", in: []*ir.Tensor{i8([]int{2}, -128, 5)}, attrs: to(ir.String), want: []*ir.Tensor{text([]int{2}, "-128", "5")}},
		{name: "truth to text", op: "Cast", in: []*ir.Tensor{bools([]int{2}, true, false)}, attrs: to(ir.String), want: []*ir.Tensor{text([]int{2}, "1", "0")}},
		{name: "text", op: "Cast", in: []*ir.Tensor{text([]int{6}, "314.15926", "1E8", "+inf", "-INF", "nAn", "1e99")}, attrs: to(ir.Float32),
			want: []*ir.Tensor{f32([]int{6}, 314.15926, 1e8, inf32, -inf32, nan32, inf32)}},
		{name: "text to integers", op: "Cast", in: []*ir.Tensor{text([]int{3}, "9007199254740993", "-100.5", " 1e3")}, attrs: to(ir.Int64), want: []*ir.Tensor{i64([]int{3}, 9007199254740993, -100, 1000)}},
		{name: "no number", op: "Cast", in: []*ir.Tensor{text([]int{1}, "Hello World!")}, attrs: to(ir.Int64), fails: "is no number"},
		{name: "as the second", op: "CastLike", in: []*ir.Tensor{f32([]int{1}, 2), i64([]int{0})}, want: []*ir.Tensor{i64([]int{1}, 2)}},
		{name: "same bits", op: "BitCast", opset: 26, in: []*ir.Tensor{f32([]int{1}, 1)}, attrs: to(ir.Int32), want: []*ir.Tensor{i32([]int{1}, 0x3f800000)}},
		{name: "other width", op: "BitCast", opset: 26, in: []*ir.Tensor{f32([]int{1}, 1)}, attrs: to(ir.Int64), fails: "cannot be read"},
	})
	if _, err := castModel(ir.NewTensor(ir.Complex64, 1), ir.Float32); !errors.Is(err, op.ErrUnsupported) {
		t.Errorf("from complex64: error %v, want ErrUnsupported", err)
	}
}
