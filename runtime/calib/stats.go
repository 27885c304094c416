package calib

import "github.com/qsimc/qsimc/ir/numfmt"

// Stats keeps what Range observers have seen, for other schemes on copies of the same model with the same samples: the
// histogram of a value serves every symmetric format; what mse-exact measures serves its own scheme alone. Values are known by their names. It is not for concurrent use.
type Stats struct{ by map[statsKey][]group }

type statsKey struct {
	value  string
	method Method
	affine bool
	axis   int
	block  int
	scheme numfmt.Scheme // of mse-exact, else none
}

func keyOf(value string, r *Range) statsKey {
	k := statsKey{value: value, method: r.method, affine: r.scheme.Affine, axis: r.axis, block: r.block}
	if r.method.Name == "mse-exact" {
		k.scheme = r.scheme
	}
	return k
}

// Take gives an observer that has seen nothing what is kept of the value; false if that is nothing. A nil Stats keeps nothing.
func (s *Stats) Take(value string, r *Range) bool {
	if s == nil {
		return false
	}
	groups, ok := s.by[keyOf(value, r)]
	if ok {
		r.groups, r.seen = groups, true
	}
	return ok
}

// Keep stores what an observer has seen of the value; it must not observe any more.
func (s *Stats) Keep(value string, r *Range) {
	if s == nil || !r.seen {
		return
	}
	if s.by == nil {
		s.by = map[statsKey][]group{}
	}
	s.by[keyOf(value, r)] = r.groups
}
