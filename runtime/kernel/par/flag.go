package par

import "sync/atomic"

// Flag is a fact that the bodies of a loop may establish, in any order and more than once.
type Flag struct{ v atomic.Bool }

// Set establishes the fact.
func (f *Flag) Set() {
	if !f.v.Load() {
		f.v.Store(true)
	}
}

// IsSet reports whether any body called Set.
func (f *Flag) IsSet() bool { return f.v.Load() }
