package op

import "github.com/qsimc/qsimc/ir"

var gruKind = recurrentKind{gates: 3, parts: []int{2, 1}, activations: []string{"Sigmoid", "Tanh"}}

var gruDef = &Def{
	Name: "GRU", Doc: "one layer of gated recurrent units, in one or both directions", Since: 1, Versions: []int{1, 3, 7, 14, 22},
	Types: "float, double, float16, bfloat16", In: Between(3, 6), Out: Between(0, 2), Widen: true,
	Upgrades: []Upgrade{{To: 7, Apply: dropOutputSequence}},
	Infer:    recurrentTypes(gruKind),
	Prepare:  prepareRecurrent(gruKind),
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		return evalFloat(c, []int{1, 2, 3, 5}, gru[float32], gru[float64])
	},
}

func gru[T floatElem](c *Call) ([]*ir.Tensor, error) {
	linearFirst := c.Node.Int("linear_before_reset", 0) != 0
	var zr, hh, reset []T
	return runRecurrent(c, gruKind, func(l *recurrent[T], s *recurrentStep[T]) {
		n := l.hidden
		if len(hh) != l.batch*n {
			zr, hh, reset = make([]T, l.batch*2*n), make([]T, l.batch*n), make([]T, l.batch*n)
		}
		l.products[0](l.batch, s.h, zr)
		s.rows(2*n, func(b int, g []T) {
			addTo(g[:2*n], zr[b*2*n:])
			l.addBias(g, 0, 2, true, true)
			l.act[0](g[:2*n])
			for k, r := range g[n : 2*n] {
				reset[b*n+k] = r * s.h[b*n+k]
			}
		})
		if linearFirst {
			l.products[1](l.batch, s.h, hh)
		} else {
			l.products[1](l.batch, reset, hh)
		}
		s.rows(2*n, func(b int, g []T) {
			h, next, z := hh[b*n:(b+1)*n], g[2*n:], g[:n]
			if l.bias != nil {
				addTo(h, l.bias[5*n:])
			}
			l.addBias(g, 2, 3, true, false)
			for k, v := range h {
				if linearFirst {
					v *= g[n+k]
				}
				next[k] += v
			}
			l.act[1](next)
			for k := range next {
				s.h[b*n+k] = T((1-z[k])*next[k]) + T(z[k]*s.h[b*n+k])
			}
		})
	})
}
