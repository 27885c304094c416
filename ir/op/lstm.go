package op

import "github.com/qsimc/qsimc/ir"

var lstmKind = recurrentKind{gates: 4, parts: []int{4}, activations: []string{"Sigmoid", "Tanh", "Tanh"}, cell: true}

var lstmDef = &Def{
	Name: "LSTM", Doc: "one long short-term memory layer, in one or both directions", Since: 1, Versions: []int{1, 7, 14, 22},
	Types: "float, double, float16, bfloat16", In: Between(3, 8), Out: Between(0, 3), Widen: true,
	Upgrades: []Upgrade{{To: 7, Apply: dropOutputSequence}},
	Infer:    recurrentTypes(lstmKind),
	Prepare:  prepareRecurrent(lstmKind),
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		return evalFloat(c, []int{1, 2, 3, 5, 6, 7}, lstm[float32], lstm[float64])
	},
}

func lstm[T floatElem](c *Call) ([]*ir.Tensor, error) {
	coupled := c.Node.Int("input_forget", 0) != 0
	var hr []T
	return runRecurrent(c, lstmKind, func(l *recurrent[T], s *recurrentStep[T]) {
		n := l.hidden
		if len(hr) != l.batch*4*n {
			hr = make([]T, l.batch*4*n)
		}
		l.products[0](l.batch, s.h, hr)
		s.rows(4*n, func(b int, g []T) {
			addTo(g, hr[b*4*n:])
			l.addBias(g, 0, 4, true, true)
			h, c := s.h[b*n:(b+1)*n], s.c[b*n:(b+1)*n]
			i, o, f, next := g[:n], g[n:2*n], g[2*n:3*n], g[3*n:4*n]
			if p := l.peephole; p != nil {
				addProducts(i, p[:n], c)
				addProducts(f, p[2*n:3*n], c)
			}
			l.act[0](i)
			l.act[0](f)
			l.act[1](next)
			for k := range c {
				if coupled {
					f[k] = 1 - i[k]
				}
				c[k] = T(f[k]*c[k]) + T(i[k]*next[k])
			}
			if p := l.peephole; p != nil {
				addProducts(o, p[n:2*n], c)
			}
			l.act[0](o)
			copy(h, c)
			l.act[2](h)
			for k := range h {
				h[k] *= o[k]
			}
		})
	})
}

// addProducts adds x·y, element by element, to dst.
func addProducts[T floatElem](dst, x, y []T) {
	for k := range dst {
		dst[k] += T(x[k] * y[k])
	}
}
