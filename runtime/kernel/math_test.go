package kernel_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/qsimc/qsimc/runtime/kernel"
)

// ulps is the distance of got from want in units of want's last place (of the least normal number's below that).
func ulps(got float32, want float64) float64 {
	w := math.Abs(want)
	_, e := math.Frexp(max(w, 0x1p-126))
	return math.Abs(float64(got)-want) / math.Ldexp(1, e-24)
}

func TestFunctions(t *testing.T) {
	sigmoid := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	for _, c := range []struct {
		name  string
		f     func(dst, x []float32)
		want  func(x float64) float64
		ulp   float64
		abs   float64 // of |x|, where the formula itself cancels
		limit float64
	}{
		{"Exp", kernel.Exp, math.Exp, 2, 0, 90},
		{"Erf", kernel.Erf, math.Erf, 5, 0, 6},
		{"Tanh", kernel.Tanh, math.Tanh, 5, 0, 12},
		{"Sigmoid", kernel.Sigmoid, sigmoid, 4, 0, 80},
		{"Silu", kernel.Silu, func(x float64) float64 { return x * sigmoid(x) }, 5, 0, 80},
		{"Gelu", kernel.Gelu, func(x float64) float64 { return 0.5 * x * math.Erfc(-x/math.Sqrt2) }, 5, 2e-7, 10},
		{"GeluTanh", kernel.GeluTanh, func(x float64) float64 {
			return x * sigmoid(2*math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x))
		}, 5, 2e-7, 10},
		{"Sqrt", kernel.Sqrt, math.Sqrt, 0.5, 0, 90},
	} {
		kernel.EachLevel(t, func(t *testing.T) {
			var x []float32
			for i := range 40001 {
				x = append(x, float32((float64(i)/20000-1)*c.limit))
			}
			for e := -126; e < 2; e++ {
				x = append(x, float32(math.Ldexp(1.37, e)), float32(math.Ldexp(-1.91, e)))
			}
			d := make([]float32, len(x))
			c.f(d, x)
			worst, at := 0.0, float32(0)
			for i, v := range x {
				w := c.want(float64(v))
				if w != w && d[i] != d[i] || float32(w) == d[i] {
					continue
				}
				if math.Abs(w) < 0x1p-126 && d[i] == 0 || math.Abs(float64(d[i])-w) <= c.abs*math.Abs(float64(v)) {
					continue
				}
				if u := ulps(d[i], w); !(u <= worst) {
					worst, at = u, v
				}
			}
			t.Logf("%s: %.2f ulp at %v", c.name, worst, at)
			if !(worst <= c.ulp) {
				t.Errorf("%s: %.2f ulp at %v, want at most %v", c.name, worst, at, c.ulp)
			}
		})
	}
}

func TestFunctionSpecials(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	neg0 := float32(math.Copysign(0, -1))
	x := []float32{0, neg0, inf, -inf, nan, 1e30, -1e30}
	for _, c := range []struct {
		name string
		f    func(dst, x []float32)
		want []float32
	}{
		{"Exp", kernel.Exp, []float32{1, 1, inf, 0, nan, inf, 0}},
		{"Erf", kernel.Erf, []float32{0, neg0, 1, -1, nan, 1, -1}},
		{"Tanh", kernel.Tanh, []float32{0, neg0, 1, -1, nan, 1, -1}},
		{"Sigmoid", kernel.Sigmoid, []float32{.5, .5, 1, 0, nan, 1, 0}},
		{"Relu", kernel.Relu, []float32{0, 0, inf, 0, nan, 1e30, 0}},
		{"Sqrt", kernel.Sqrt, []float32{0, neg0, inf, nan, nan, float32(math.Sqrt(float64(float32(1e30)))), nan}},
		{"Clip", func(d, x []float32) { kernel.Clip(d, x, -2, 3) }, []float32{0, neg0, 3, -2, nan, 3, -2}},
	} {
		kernel.EachLevel(t, func(t *testing.T) {
			d := make([]float32, len(x))
			c.f(d, x)
			checkBits(t, c.name, d, c.want)
		})
	}
}

func TestArithmeticAgrees(t *testing.T) {
	for _, n := range lengths {
		a, b := mixed(n, 21), mixed(n, 22)
		for i := range b { // other pairs than equal specials
			b[i], b[(i+7)%n] = b[(i+7)%n], b[i]
		}
		for name, f := range map[string]func(d []float32){
			"Add": func(d []float32) { kernel.Add(d, a, b) }, "Sub": func(d []float32) { kernel.Sub(d, a, b) },
			"Mul": func(d []float32) { kernel.Mul(d, a, b) }, "Div": func(d []float32) { kernel.Div(d, a, b) },
			"Maximum":   func(d []float32) { kernel.Maximum(d, a, b) },
			"AddScalar": func(d []float32) { kernel.AddScalar(d, a, 1.7) }, "SubScalar": func(d []float32) { kernel.SubScalar(d, a, 1.7) },
			"RSubScalar": func(d []float32) { kernel.RSubScalar(d, a, 1.7) }, "MulScalar": func(d []float32) { kernel.MulScalar(d, a, 1.7) },
			"DivScalar": func(d []float32) { kernel.DivScalar(d, a, 1.7) }, "RDivScalar": func(d []float32) { kernel.RDivScalar(d, a, 1.7) },
			"Relu": func(d []float32) { kernel.Relu(d, a) }, "Clip": func(d []float32) { kernel.Clip(d, a, -1, 2) },
			"Sqrt": func(d []float32) { kernel.Sqrt(d, a) },
			"Axpy": func(d []float32) { copy(d, b); kernel.Axpy(d, a, 0.3) },
		} {
			agree(t, fmt.Sprintf("%s/%d", name, n), func() []float32 {
				d := make([]float32, n)
				f(d)
				return d
			})
		}
	}
}

// Both vector levels give the same bits for what plain Go computes otherwise.
func TestVectorLevelsAgree(t *testing.T) {
	var ref map[string][]float32
	for _, level := range []string{"avx512", "avx2"} {
		restore, ok := kernel.SetLevel(level)
		if !ok {
			continue
		}
		got := map[string][]float32{}
		for _, n := range lengths {
			x := mixed(n, 31)
			for name, f := range map[string]func(d, x []float32){
				"Exp": kernel.Exp, "Erf": kernel.Erf, "Gelu": kernel.Gelu, "GeluTanh": kernel.GeluTanh,
				"Sigmoid": kernel.Sigmoid, "Tanh": kernel.Tanh, "Silu": kernel.Silu,
				"Softmax":   func(d, x []float32) { kernel.Softmax(1, n, d, randn(n, 3)) },
				"LayerNorm": func(d, x []float32) { kernel.LayerNorm(1, n, d, randn(n, 4), randn(n, 5), randn(n, 6), 1e-5, nil, nil) },
			} {
				d := make([]float32, n)
				f(d, x)
				got[fmt.Sprintf("%s/%d", name, n)] = d
			}
		}
		if ref == nil {
			ref = got
		}
		for name := range ref {
			checkBits(t, name+" at "+level, got[name], ref[name])
		}
		restore()
	}
}

func TestNorms(t *testing.T) {
	kernel.EachLevel(t, func(t *testing.T) {
		for _, cols := range []int{1, 2, 16, 33, 100, 768} {
			rows := 5
			x, g, b := randn(rows*cols, 1), randn(cols, 2), randn(cols, 3)
			sm, ln, rms, ls := make([]float32, len(x)), make([]float32, len(x)), make([]float32, len(x)), make([]float32, len(x))
			kernel.Softmax(rows, cols, sm, x)
			kernel.LogSoftmax(rows, cols, ls, x)
			kernel.LayerNorm(rows, cols, ln, x, g, b, 1e-5, nil, nil)
			kernel.RMSNorm(rows, cols, rms, x, g, 1e-5)
			for r := range rows {
				var sum, mean, vr, ms float64
				for _, v := range x[r*cols : (r+1)*cols] {
					sum += math.Exp(float64(v))
					mean += float64(v) / float64(cols)
					ms += float64(v) * float64(v) / float64(cols)
				}
				for _, v := range x[r*cols : (r+1)*cols] {
					vr += (float64(v) - mean) * (float64(v) - mean) / float64(cols)
				}
				for c := range cols {
					i, v := r*cols+c, float64(x[r*cols+c])
					near := func(what string, got float32, want, scale float64) {
						if d := math.Abs(float64(got) - want); !(d <= 2e-6*(scale+math.Abs(want))) {
							t.Errorf("%s %d: got %v, want %v", what, i, got, want)
						}
					}
					near("softmax", sm[i], math.Exp(v)/sum, 0)
					near("log softmax", ls[i], v-math.Log(sum), 1)
					near("layer norm", ln[i], (v-mean)/math.Sqrt(vr+1e-5)*float64(g[c])+float64(b[c]), 1)
					near("rms norm", rms[i], v/math.Sqrt(ms+1e-5)*float64(g[c]), 1)
				}
			}
		}
		ninf := float32(math.Inf(-1))
		d := make([]float32, 3)
		kernel.Softmax(1, 3, d, []float32{0, ninf, 0})
		checkBits(t, "masked softmax", d, []float32{.5, 0, .5})
	})
}
