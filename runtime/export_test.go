package runtime

// Steps names the operations that Run executes, joined ones by the name of what they were joined to.
func Steps(p *Program) []string {
	var names []string
	for _, st := range p.fast.steps {
		name := st.def.Name
		switch s := st.state.(type) {
		case *linear:
			if s.codes != nil {
				name = "linear on codes"
			}
			if s.blocks != nil {
				name = "linear on blocks"
			}
		case *convolution:
			if s.codes != nil {
				name = "convolution on codes"
			}
		}
		names = append(names, name)
	}
	return names
}
