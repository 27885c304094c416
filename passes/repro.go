package passes

import (
	"bytes"
	"fmt"
	"io"

	"github.com/qsimc/qsimc/ir"
)

// Repro is what reproduces the failure of a pass: the model before it and the pipeline from it on.
type Repro struct {
	Model    *ir.Model
	Pipeline *Pipeline
	Policy   *Policy
	Err      error
}

// reproWeights is the number of bytes of constants beyond which a reproducer elides them.
const reproWeights = 4 << 20

// Write writes the reproducer as a txtar archive in the form of the golden cases (passtest): comment, pipeline, policy, model
// in ONNX's text syntax. Large models are written without the bulk of their weights and say so: such an archive is for
// reading, and the model itself is needed to run it.
func (r Repro) Write(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%v\n", r.Err)
	size := 0
	for g := range r.Model.Graphs() {
		for _, c := range g.Consts() {
			size += c.Const().Size()
		}
	}
	var o ir.PrintOptions
	if size > reproWeights {
		o.Elide = 16
		fmt.Fprintf(&b, "%d bytes of constants: tensors of more than %d elements are elided, run the pipeline on %q\n", size, o.Elide, r.Model.Path)
	}
	fmt.Fprintf(&b, "-- pipeline --\n")
	for _, s := range r.Pipeline.Steps() {
		fmt.Fprintln(&b, s)
	}
	fmt.Fprintf(&b, "-- policy --\n%s-- in --\n", r.Policy)
	if err := o.Print(&b, r.Model); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}
