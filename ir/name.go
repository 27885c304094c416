package ir

import "strconv"

// nameTable remembers every name a model ever had, for fresh names.
type nameTable struct {
	values, nodes map[string]int // name → last suffix tried
}

func (t *nameTable) take(name string) {
	if t.values == nil {
		t.values = map[string]int{}
	}
	if _, ok := t.values[name]; !ok {
		t.values[name] = 0
	}
}

func (t *nameTable) takeNode(name string) {
	if t.nodes == nil {
		t.nodes = map[string]int{}
	}
	if _, ok := t.nodes[name]; !ok {
		t.nodes[name] = 0
	}
}

func fresh(used map[string]int, hint string) string {
	last, ok := used[hint]
	if !ok {
		return hint
	}
	for {
		last++
		name := hint + "_" + strconv.Itoa(last)
		if _, ok := used[name]; !ok {
			used[hint] = last
			return name
		}
	}
}

// FreshName returns hint, or hint with a number, such that no value of the model has the name; the name is taken at once.
func (m *Model) FreshName(hint string) string {
	if hint == "" {
		hint = "v"
	}
	name := fresh(m.names.values, hint)
	m.names.take(name)
	return name
}

// FreshNode is FreshName for the names of nodes.
func (m *Model) FreshNode(hint string) string {
	name := fresh(m.names.nodes, hint)
	m.names.takeNode(name)
	return name
}

// Rename gives a value a fresh name made from hint.
func (v *Value) Rename(hint string) { v.Name = v.graph.model.FreshName(hint) }
