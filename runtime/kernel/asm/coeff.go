package main

// Rational approximations to erf and tanh, fitted for relative error (weighted least squares in x², reweighted towards
// the largest errors, in 50 digits): erf to 2.1e-8 on |x| <= 3.95, tanh to 9.5e-10 on |x| <= 9.02; beyond these both
// are 1 to half a unit in the last place of float32.
var (
	erf = rational{
		p: []float64{2.0258989934518468e-06, 0.0002846837160177529, 0.003808072069659829, 0.052875179797410965,
			0.19154852628707886, 1.1283791065216064},
		q: []float64{3.783148713409901e-05, 0.0011706999503076077, 0.015054917894303799, 0.1145588606595993,
			0.503088116645813, 1},
		limit: 3.95,
	}
	tanh = rational{
		p: []float64{5.0754341174297224e-08, 3.158667459501885e-05, 0.004008395131677389, 0.137852743268013, 1},
		q: []float64{7.372910060254867e-10, 1.617305542822578e-06, 0.0004207204910926521, 0.027737097814679146,
			0.4711860716342926, 1},
		limit: 9.02,
	}
)
