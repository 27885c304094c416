package op

import (
	"fmt"
	"slices"

	"github.com/qsimc/qsimc/ir"
)

var scanDef = &Def{
	Name: "Scan", Doc: "a subgraph run on each slice of its scan inputs, with states carried along", Since: 8,
	Versions: []int{8, 9, 11, 16, 19, 21, 23, 24, 25}, Types: "all",
	In: AtLeast(1), Out: AtLeast(1),
	Upgrades: []Upgrade{{To: 9, Apply: upgradeScan}},
	Infer:    inferScan,
	Eval:     evalScan,
}

// scanForm is a Scan's structure.
type scanForm struct {
	body           *ir.Graph
	states, scans  int
	inAxes, inDirs []int64 // one per scan input
	outAxes        []int64 // one per scan output
	outDirs        []int64
}

func scanOf(n *ir.Node) (*scanForm, error) {
	g, err := bodyOf(n, "body")
	if err != nil {
		return nil, err
	}
	m := n.Int("num_scan_inputs", 0)
	if m < 1 || m > int64(n.NumIn()) {
		return nil, fmt.Errorf("num_scan_inputs is %d, the node has %d inputs", m, n.NumIn())
	}
	f := &scanForm{body: g, scans: int(m), states: n.NumIn() - int(m)}
	if len(g.Inputs()) != n.NumIn() {
		return nil, fmt.Errorf("body has %d inputs, wants %d", len(g.Inputs()), n.NumIn())
	}
	k := len(g.Outputs()) - f.states
	if k < 0 || n.NumOut() > len(g.Outputs()) {
		return nil, fmt.Errorf("body has %d outputs for %d states and %d outputs of the node", len(g.Outputs()), f.states, n.NumOut())
	}
	list := func(attr string, n2 int) []int64 {
		v := n.Ints(attr)
		if v == nil {
			v = make([]int64, n2)
		}
		if len(v) != n2 && err == nil {
			err = fmt.Errorf("%s has %d entries, wants %d", attr, len(v), n2)
		}
		return v
	}
	f.inAxes, f.inDirs = list("scan_input_axes", f.scans), list("scan_input_directions", f.scans)
	f.outAxes, f.outDirs = list("scan_output_axes", k), list("scan_output_directions", k)
	return f, err
}

func inferScan(c *Call) ([]ir.Type, error) {
	f, err := scanOf(c.Node)
	if err != nil {
		return nil, err
	}
	in := make([]ir.Type, f.states+f.scans)
	length := ir.UnknownDim
	for i := range in {
		if !c.Has(i) {
			return nil, fmt.Errorf("input %d is absent", i)
		}
		in[i] = c.Type(i)
		if j := i - f.states; j >= 0 && in[i].Ranked {
			a, err := Axis(f.inAxes[j], len(in[i].Dims))
			if err != nil {
				return nil, fmt.Errorf("scan input %d: %w", j, err)
			}
			if d := in[i].Dims[a]; d.Known() || length.Name == "" && !length.Known() {
				length = ir.Dim{Size: d.Size, Name: d.Name}
			}
			in[i] = ir.TensorType(in[i].Elem, slices.Delete(cloneDims(in[i].Dims), a, a+1)...)
		}
	}
	out, err := inferBody(c, f.body, in, 0, f.states, 0)
	if err != nil {
		return nil, err
	}
	types := append([]ir.Type{}, in[:f.states]...)
	for i, t := range out[f.states:] {
		types = append(types, stackedType(t, f.outAxes[i], length))
	}
	return types[:c.Node.NumOut()], nil
}

func evalScan(c *Call) ([]*ir.Tensor, error) {
	f, err := scanOf(c.Node)
	if err != nil {
		return nil, err
	}
	axes, length := make([]int, f.scans), -1
	for j := range axes {
		s := c.In[f.states+j].Shape()
		if axes[j], err = Axis(f.inAxes[j], len(s)); err != nil {
			return nil, fmt.Errorf("scan input %d: %w", j, err)
		}
		if n := s[axes[j]]; length >= 0 && n != length {
			return nil, fmt.Errorf("scan input %d has %d slices, those before it %d", j, n, length)
		}
		length = s[axes[j]]
	}
	states := append([]*ir.Tensor{}, c.In[:f.states]...)
	stacks := make([]stack, len(f.outAxes))
	for i := range stacks {
		stacks[i] = stack{axis: f.outAxes[i], back: f.outDirs[i] != 0}
	}
	for t := range length {
		if err := c.Context().Err(); err != nil {
			return nil, err
		}
		in := append([]*ir.Tensor{}, states...)
		for j, a := range axes {
			k := t
			if f.inDirs[j] != 0 {
				k = length - 1 - t
			}
			x, err := sliceAt(c, c.In[f.states+j], a, k)
			if err != nil {
				return nil, err
			}
			in = append(in, x)
		}
		out, err := c.Run(f.body, in...)
		if err != nil {
			return nil, fmt.Errorf("iteration %d: %w", t, err)
		}
		copy(states, out[:f.states])
		for i := range stacks {
			if err := stacks[i].add(c, out[f.states+i]); err != nil {
				return nil, fmt.Errorf("iteration %d: scan output %d: %w", t, i, err)
			}
		}
	}
	for i := range stacks {
		t, err := stacks[i].result(c, f.body.Outputs()[f.states+i].Value.Type)
		if err != nil {
			return nil, fmt.Errorf("scan output %d: %w", i, err)
		}
		states = append(states, t)
	}
	return states, nil
}

// sliceAt returns x at index k of an axis, without that axis.
func sliceAt(c *Call, x *ir.Tensor, axis, k int) (*ir.Tensor, error) {
	s := x.Shape()
	shape := slices.Delete(slices.Clone(s), axis, axis+1)
	outer, inner := product(s[:axis]), product(s[axis+1:])
	if outer == 1 {
		if v := part(x, k*inner, shape); v != nil {
			return v, nil
		}
	}
	return move(c, x.Elem(), shape, []*ir.Tensor{x}, func(dst []byte, src [][]byte, w int) {
		strided(dst, src[0], w, 0, k*inner, []step{{outer, inner, s[axis] * inner}, {inner, 1, 1}})
	})
}

// upgradeScan turns opset 8's Scan, whose inputs have a batch dimension before the scanned one, into a Scan over the batch
// whose body is a Scan over the sequence.
func upgradeScan(u *Up) error {
	n := u.Node
	if n.Origin == "upgrade" {
		return nil // the inner Scan, which this wrote
	}
	if n.In(0) != nil {
		return fmt.Errorf("sequence_lens (input 0) is given: %w", ErrUnsupported)
	}
	ins := n.Ins()[1:]
	m := n.Int("num_scan_inputs", 0)
	body, err := bodyOf(n, "body")
	if err != nil {
		return err
	}
	attrs := []ir.Attr{ir.IntAttr("num_scan_inputs", m), ir.GraphAttr("body", body)}
	if d := n.Ints("directions"); d != nil {
		attrs = append(attrs, ir.IntsAttr("scan_input_directions", d...))
	}
	n.DelAttr("directions")
	n.DelAttr("body")
	model := n.Graph().Model()
	batch := ir.NewGraph(model, body.Name+"_batch")
	var inner []*ir.Value
	for i, v := range ins {
		if v == nil {
			return fmt.Errorf("input %d is absent", i+1)
		}
		t := ir.Type{Elem: v.Type.Elem}
		if v.Type.Rank() > 0 {
			t = ir.TensorType(v.Type.Elem, cloneDims(v.Type.Dims[1:])...)
		}
		inner = append(inner, batch.AddInput(model.FreshName(v.Name+"_item"), t))
		n.SetIn(i, v)
	}
	n.TrimIns(len(ins))
	outs := make([]string, len(body.Outputs()))
	for i, o := range body.Outputs() {
		outs[i] = o.Name + "_item"
	}
	k := batch.Insert(nil, n.Name+"_sequence", ir.Op("Scan"), inner, outs, attrs...)
	k.Origin = "upgrade"
	for i := range outs {
		batch.AddOutput(k.Out(i).Name, k.Out(i))
	}
	n.SetAttr(ir.GraphAttr("body", batch))
	n.SetAttr(ir.IntAttr("num_scan_inputs", int64(len(ins))))
	return nil
}
