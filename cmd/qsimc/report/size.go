package report

import (
	"cmp"
	"fmt"
	"html/template"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/op"
)

// Part is a share of a file.
type Part struct {
	Name  string
	Bytes int64
}

// Sizes splits a model's file of the given length into what its constants are for, largest part first; the rest of the file
// — nodes, names, whatever takes less than a thousandth — comes last.
func Sizes(m *ir.Model, file int64) []Part {
	bytes := map[string]int64{}
	rest := file
	for g := range m.Graphs() {
		for v := range g.Values() {
			t := v.Const()
			if t == nil {
				continue
			}
			n := (int64(t.Len())*int64(t.Elem().Bits()) + 7) / 8
			bytes[purpose(v, t)] += n
			rest -= n
		}
	}
	parts := make([]Part, 0, len(bytes)+1)
	for name, n := range bytes {
		if n < file/1000 { // too little to be seen
			rest += n
			continue
		}
		parts = append(parts, Part{name, n})
	}
	slices.SortFunc(parts, func(a, b Part) int { return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Name, b.Name)) })
	if rest > 0 {
		parts = append(parts, Part{"nodes, names and small constants", rest})
	}
	return parts
}

// purpose says what a constant is for: integers and small floats hold quantized weights, operands of quantizers other than the
// first are scales and zero points.
func purpose(v *ir.Value, t *ir.Tensor) string {
	for _, u := range v.Uses() {
		if u.Node != nil && op.RoleOf(u.Node) == op.QuantRole && u.Slot > 0 && t.Rank() < 4 && t.Elem().IsFloat() && t.Elem().Bits() > 8 {
			return "scales"
		}
	}
	switch e := t.Elem(); {
	case e == ir.Int64 || e == ir.Bool || e == ir.String:
		return "shapes, indices and masks"
	case e.Bits() <= 8:
		return fmt.Sprintf("%v values", e)
	default:
		return fmt.Sprintf("%v parameters", e)
	}
}

// sizeBars draws one stacked bar for each file, all to the same scale. A part has the same colour in both.
func sizeBars(files []sizeFile) template.HTML {
	var names []string
	var most int64
	for _, f := range files {
		var sum int64
		for _, p := range f.Parts {
			if !slices.Contains(names, p.Name) {
				names = append(names, p.Name)
			}
			sum += p.Bytes
		}
		most = max(most, sum, f.Total)
	}
	if most == 0 {
		return ""
	}
	d := &drawing{}
	for _, f := range files {
		d.markup(`<div class="size"><span>`).text(f.Name + " · " + Bytes(f.Total)).markup(`</span><div class="bar">`)
		for _, p := range f.Parts {
			d.markup(`<i class="k%d" style="width:%.3f%%" title="`, slices.Index(names, p.Name)%8+1, 100*float64(p.Bytes)/float64(most)).
				text(p.Name + ": " + Bytes(p.Bytes)).markup(`"></i>`)
		}
		d.markup(`</div></div>`)
	}
	d.markup(`<div class="legend">`)
	for i, n := range names {
		d.markup(`<span><i class="k%d"></i>`, i%8+1).text(n)
		for k, f := range files {
			sep := ": "
			if k > 0 {
				sep = " → "
			}
			j := slices.IndexFunc(f.Parts, func(p Part) bool { return p.Name == n })
			if j < 0 {
				d.text(sep + "–")
			} else {
				d.text(sep + Bytes(f.Parts[j].Bytes))
			}
		}
		d.markup(`</span>`)
	}
	return d.markup(`</div>`).html()
}

type sizeFile struct {
	Name  string
	Total int64
	Parts []Part
}

// Bytes prints a number of bytes for people.
func Bytes(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.2f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d B", n)
}
