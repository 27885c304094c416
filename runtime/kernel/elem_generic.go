package kernel

import "math"

// generic is the plain Go level: every architecture, and the definition of what the others must compute.
var generic = impl{
	name:       "none",
	conv:       genericConv,
	winograd:   winogradGeneric,
	convPairs:  genericConvInt,
	fastInt8:   true,
	blockTiles: []*blockTile{{tile: tile[int32]{mr: 4, nr: 8, mc: 120, cost: 1}, per: 2, kern: genericBlocks(4)}},
	fastBlocks: true,
	copyRows:   copyRowsGeneric,
	splitRows:  splitRowsGeneric,
	tiles:      []*tile[float32]{{mr: 4, nr: 8, mc: 128, kern: genericKernels(rowFloat[float32])}},
	tilesD:     []*tile[float64]{{mr: 4, nr: 8, mc: 64, kern: genericKernels(rowFloat[float64])}},
	tilesI:     []*tile[int32]{{mr: 4, nr: 8, mc: 128, kern: genericKernels(rowInt)}},
	binary: [numBinary]func(dst, a, b []float32){
		opAdd: func(dst, a, b []float32) {
			for i := range dst {
				dst[i] = a[i] + b[i]
			}
		},
		opSub: func(dst, a, b []float32) {
			for i := range dst {
				dst[i] = a[i] - b[i]
			}
		},
		opMul: func(dst, a, b []float32) {
			for i := range dst {
				dst[i] = a[i] * b[i]
			}
		},
		opMaximum: func(dst, a, b []float32) {
			for i := range dst {
				dst[i] = maximum(a[i], b[i])
			}
		},
		opDiv: func(dst, a, b []float32) {
			for i := range dst {
				dst[i] = a[i] / b[i]
			}
		},
	},
	scalar: [numScalar]func(dst, a []float32, s float32){
		opAddS: func(dst, a []float32, s float32) {
			for i := range dst {
				dst[i] = a[i] + s
			}
		},
		opSubS: func(dst, a []float32, s float32) {
			for i := range dst {
				dst[i] = a[i] - s
			}
		},
		opRSubS: func(dst, a []float32, s float32) {
			for i := range dst {
				dst[i] = s - a[i]
			}
		},
		opMulS: func(dst, a []float32, s float32) {
			for i := range dst {
				dst[i] = a[i] * s
			}
		},
		opDivS: func(dst, a []float32, s float32) {
			for i := range dst {
				dst[i] = a[i] / s
			}
		},
		opRDivS: func(dst, a []float32, s float32) {
			for i := range dst {
				dst[i] = s / a[i]
			}
		},
	},
	unary: [numUnary]func(dst, x []float32){
		opRelu: reluGeneric,
		opExp: func(dst, x []float32) {
			for i, v := range x {
				dst[i] = expGeneric(v)
			}
		},
		opErf: func(dst, x []float32) {
			for i, v := range x {
				dst[i] = float32(math.Erf(float64(v)))
			}
		},
		opGelu: func(dst, x []float32) {
			for i, v := range x {
				w := float64(v)
				dst[i] = float32(0.5 * w * (1 + math.Erf(w*(1/math.Sqrt2))))
			}
		},
		opGeluTanh: func(dst, x []float32) {
			for i, v := range x {
				w := float64(v)
				dst[i] = float32(0.5 * w * (1 + math.Tanh(geluTanhC*(w+0.044715*w*w*w))))
			}
		},
		opSigmoid: func(dst, x []float32) {
			for i, v := range x {
				dst[i] = 1 / (1 + expGeneric(-v))
			}
		},
		opTanh: func(dst, x []float32) {
			for i, v := range x {
				dst[i] = float32(math.Tanh(float64(v)))
			}
		},
		opSilu: func(dst, x []float32) {
			for i, v := range x {
				dst[i] = v / (1 + expGeneric(-v))
			}
		},
		opSqrt: func(dst, x []float32) {
			for i, v := range x {
				dst[i] = float32(math.Sqrt(float64(v)))
			}
		},
	},
	clip: clipGeneric,
	addMulI: func(dst, x []int32, s int32) {
		for i, v := range x {
			dst[i] += v * s
		}
	},
	scaleI: func(dst []float32, x, y []int32, s int32, scale []float32) {
		for i, v := range x {
			dst[i] = float32(v+y[i]*s) * scale[i]
		}
	},
	scaleIS: func(dst []float32, x []int32, s int32, scale float32) {
		for i, v := range x {
			dst[i] = float32(v+s) * scale
		}
	},
	axpy: func(dst, x []float32, s float32) {
		for i, v := range x {
			dst[i] += float32(v * s)
		}
	},
	add64: func(dst []float64, x []float32) {
		for i, v := range x {
			dst[i] += float64(v)
		}
	},
	expSum: func(dst, x []float32, m float32) float32 {
		for i, v := range x {
			dst[i] = expGeneric(v - m)
		}
		return sumGeneric(dst)
	},
	max: func(x []float32) float32 {
		_, hi := minMaxGeneric(x)
		return hi
	},
	affine: func(dst, x []float32, mean, inv float32) {
		for i, v := range x {
			dst[i] = float32(v-mean) * inv
		}
	},
	sum:      sumGeneric,
	sumSq:    sumSqGeneric,
	sum64:    sum64Generic,
	sumSq64:  sumSq64Generic,
	compare:  compareGeneric,
	outside:  outsideGeneric,
	minMax:   minMaxGeneric,
	absMax:   absMaxGeneric,
	absMaxV:  absMaxVGeneric,
	fakeInt:  fakeIntGeneric,
	fakeIntV: fakeIntVGeneric,
	cast:     castGeneric,
	codes:    codesGeneric,
	toBF16:   toBF16Generic,
	fromBF16: fromBF16Generic,
	toF16:    toF16Generic,
	fromF16:  fromF16Generic,
}

// geluTanhC is √(2/π).
const geluTanhC = 0.7978845608028653558798921198687637369517

// expGeneric is e^x by the same reduction and polynomial as the vector levels, with two roundings where they fuse.
func expGeneric(x float32) float32 {
	if x != x {
		return x
	}
	if x > expHi {
		return float32(math.Inf(1))
	}
	if x < expLo {
		return 0
	}
	n := float32(math.RoundToEven(float64(float32(x * log2e))))
	r := x - float32(n*ln2Hi)
	r -= float32(n * ln2Lo)
	p := float32(expP0)
	p = float32(p*r) + expP1
	p = float32(p*r) + expP2
	p = float32(p*r) + expP3
	p = float32(p*r) + expP4
	p = float32(p*r) + expP5
	y := float32(float32(p*r)*r) + r + 1
	// 2^n in two factors, for n from -126 to 128.
	h := int32(n) / 2
	y *= math.Float32frombits(uint32(h+127) << 23)
	return y * math.Float32frombits(uint32(int32(n)-h+127)<<23)
}

// The reduction e^x = 2^n·e^r, |r| <= ln2/2, with ln2 in two parts, and the polynomial (e^r-1-r)/r²; the coefficients
// are those of Cephes expf (S. Moshier).
const (
	expHi = 88.72283905206835 // ln of the largest float32
	expLo = -87.33654475055310
	log2e = 1.44269504088896341
	ln2Hi = 0.693359375
	ln2Lo = -2.12194440e-4
	expP0 = 1.9875691500e-4
	expP1 = 1.3981999507e-3
	expP2 = 8.3334519073e-3
	expP3 = 4.1665795894e-2
	expP4 = 1.6666665459e-1
	expP5 = 5.0000001201e-1
)

func reluGeneric(dst, x []float32) {
	for i, v := range x {
		if v <= 0 {
			v = 0
		}
		dst[i] = v
	}
}

func clipGeneric(dst, x []float32, lo, hi float32) {
	for i, v := range x {
		if v < lo {
			v = lo
		}
		if v > hi {
			v = hi
		}
		dst[i] = v
	}
}

// maximum is the greater of x and y, NaN where one is, of zeros the negative.
func maximum(x, y float32) float32 {
	switch {
	case x > y:
		return x
	case y > x:
		return y
	default: // equal, or a NaN
		return math.Float32frombits(math.Float32bits(x) | math.Float32bits(y))
	}
}
