package op

import "github.com/qsimc/qsimc/ir"

var rnnKind = recurrentKind{gates: 1, parts: []int{1}, activations: []string{"Tanh"}}

var rnnDef = &Def{
	Name: "RNN", Doc: "one simple recurrent layer, in one or both directions", Since: 1, Versions: []int{1, 7, 14, 22},
	Types: "float, double, float16, bfloat16", In: Between(3, 6), Out: Between(0, 2), Widen: true,
	Upgrades: []Upgrade{{To: 7, Apply: dropOutputSequence}},
	Infer:    recurrentTypes(rnnKind),
	Prepare:  prepareRecurrent(rnnKind),
	Eval: func(c *Call) ([]*ir.Tensor, error) {
		return evalFloat(c, []int{1, 2, 3, 5}, simpleRNN[float32], simpleRNN[float64])
	},
}

func simpleRNN[T floatElem](c *Call) ([]*ir.Tensor, error) {
	var hr []T
	return runRecurrent(c, rnnKind, func(l *recurrent[T], s *recurrentStep[T]) {
		n := l.hidden
		if len(hr) != l.batch*n {
			hr = make([]T, l.batch*n)
		}
		l.products[0](l.batch, s.h, hr)
		s.rows(n, func(b int, g []T) {
			addTo(g, hr[b*n:])
			l.addBias(g, 0, 1, true, true)
			l.act[0](g)
			copy(s.h[b*n:(b+1)*n], g)
		})
	})
}
