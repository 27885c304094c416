// Package coeff holds the numbers that the assembly of every architecture shares.
package coeff

// Rational is an odd function x·P(x²)/Q(x²) up to |x| = Limit and ±1 beyond; coefficients highest power first.
type Rational struct {
	P, Q  []float64
	Limit float64
}

// Rational approximations to erf and tanh, fitted for relative error (weighted least squares in x², reweighted towards
// the largest errors, in 50 digits): erf to 2.1e-8 on |x| <= 3.95, tanh to 9.5e-10 on |x| <= 9.02; beyond these both
// are 1 to half a unit in the last place of float32.
var (
	Erf = Rational{
		P: []float64{2.0258989934518468e-06, 0.0002846837160177529, 0.003808072069659829, 0.052875179797410965,
			0.19154852628707886, 1.1283791065216064},
		Q: []float64{3.783148713409901e-05, 0.0011706999503076077, 0.015054917894303799, 0.1145588606595993,
			0.503088116645813, 1},
		Limit: 3.95,
	}
	Tanh = Rational{
		P: []float64{5.0754341174297224e-08, 3.158667459501885e-05, 0.004008395131677389, 0.137852743268013, 1},
		Q: []float64{7.372910060254867e-10, 1.617305542822578e-06, 0.0004207204910926521, 0.027737097814679146,
			0.4711860716342926, 1},
		Limit: 9.02,
	}
)

// Exp is the polynomial (e^r-1-r)/r² of expGeneric, whose other constants follow.
var Exp = []float64{1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1}

const (
	ExpLo = -87.33654475055310
	ExpHi = 89
	Log2E = 1.44269504088896341
	Ln2Hi = 0.693359375
	Ln2Lo = -2.12194440e-4

	// GELU by erf: 1/√2. By tanh: √(2/π), and that times 0.044715.
	Sqrt1_2    = 0.70710678118654752440
	GeluTanh   = 0.7978845608028653558798921198687637369517
	GeluTanhX2 = 0.044715 * GeluTanh
)
