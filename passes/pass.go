package passes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/ir/store"
	"github.com/qsimc/qsimc/runtime"
	"github.com/qsimc/qsimc/runtime/calib"
)

// Pass is a named rewrite with typed options.
type Pass struct {
	Name string
	Doc  string // the first line says what the pass does, the rest how

	Options []OptionInfo // what its options are, for help texts

	parse func(args []arg) (config, error)
}

// OptionInfo describes one option of a pass.
type OptionInfo struct{ Name, Type, Default, Doc string }

// config is a pass together with decoded options.
type config interface {
	run(ctx context.Context, u *Unit) error
	text() string                    // the options that differ from their defaults, in normal form
	with(args []arg) (config, error) // the same with further options set
}

// Define makes a pass whose options are the fields of T: integers, floats, bools and strings. A field's tag `opt:"name"`
// names the option (default: the field's name in lower case), `enum:"a|b"` lists what a string may be, `doc` describes it.
// Validate finds mistakes in T.
func Define[T any](name, doc string, defaults T, run func(context.Context, *Unit, T) error) *Pass {
	p := &Pass{Name: name, Doc: doc}
	fields, err := optionFields(defaults)
	if err != nil {
		panic("BUG: passes: " + name + ": " + err.Error())
	}
	for _, f := range fields {
		p.Options = append(p.Options, f.info)
	}
	p.parse = func(args []arg) (config, error) {
		return bound[T]{defaults, defaults, fields, run}.with(args)
	}
	return p
}

// bound is a config: options of type T and the function that takes them.
type bound[T any] struct {
	opts, defaults T
	fields         []optionField
	do             func(context.Context, *Unit, T) error
}

func (b bound[T]) run(ctx context.Context, u *Unit) error { return b.do(ctx, u, b.opts) }

func (b bound[T]) text() string { return optionText(b.fields, b.opts, b.defaults) }

func (b bound[T]) with(args []arg) (config, error) {
	if err := setOptions(b.fields, &b.opts, args); err != nil {
		return nil, err
	}
	return b, nil
}

// All lists the passes, in the order in which a pipeline usually has them.
var All = []*Pass{Inline, Fold, Equalize, SmoothQuant, AWQ, RPTQ, GPTQ, BiasCorrect, FakeQuant, Lower, Prune}

// Lookup returns the pass of the given name.
func Lookup(name string) (*Pass, bool) {
	i := slices.IndexFunc(All, func(p *Pass) bool { return p.Name == name })
	if i < 0 {
		return nil, false
	}
	return All[i], true
}

// Order says that one pass must come before another where a pipeline has both.
type Order struct{ Before, After, Reason string }

// Orders lists the constraints on the order of passes, each with its reason.
var Orders = []Order{
	{"inline", "fold", "what is constant in a function is so only for the arguments of a call"},
	{"inline", "fakequant", "products inside functions are sites only where the functions are written out"},
	{"fold", "fakequant", "batch normalization must be in the weights before they are quantized, and weights behind constant arithmetic become sites only when folded"},
	{"inline", "rptq", "products inside functions are sites only where the functions are written out"},
	{"fold", "rptq", "constants must be known as such, and batch normalization be in the weights"},
	{"rptq", "gptq", "gptq fits weights to the clusters of their inputs and to the inputs as they are quantized"},
	{"rptq", "fakequant", "fakequant leaves to itself what rptq has quantized"},
	{"inline", "gptq", "products inside functions are sites only where the functions are written out"},
	{"fold", "gptq", "batch normalization must be in the weights before they are rounded"},
	{"gptq", "fakequant", "fakequant stores the codes that gptq chose"},
	{"fold", "smoothquant", "batch normalization must be in the weights, and gains behind constant arithmetic be constants, before either takes factors"},
	{"fold", "equalize", "batch normalization must be in the weights before their ranges are balanced"},
	{"smoothquant", "biascorrect", "the errors of the smoothed model are the ones to correct"},
	{"awq", "biascorrect", "the errors of the scaled model are the ones to correct"},
	{"equalize", "biascorrect", "the errors of the balanced model are the ones to correct"},
	{"gptq", "biascorrect", "the errors of the weights that gptq rounded are the ones to correct"},
	{"biascorrect", "fakequant", "it corrects biases before quantizers stand between them and what it measures"},
	{"fold", "awq", "weights behind constant arithmetic become sites only when folded"},
	{"awq", "gptq", "weights must be scaled before they are rounded"},
	{"awq", "fakequant", "weights and ranges must be those of the scaled channels"},
	{"equalize", "smoothquant", "smoothquant weighs activations against the weights that are balanced already"},
	{"equalize", "gptq", "weights must be balanced before they are rounded"},
	{"equalize", "fakequant", "weights and ranges must be those of the balanced channels"},
	{"smoothquant", "fakequant", "ranges must be those of the smoothed activations"},
	{"smoothquant", "gptq", "weights must be those that read the smoothed activations before they are rounded"},
	{"smoothquant", "rptq", "channels must be clustered by the ranges that are left"},
	{"awq", "rptq", "channels must be clustered by the ranges that are left"},
	{"rptq", "biascorrect", "biases make up for what quantized inputs lose"},
	{"equalize", "rptq", "channels must be clustered by the ranges that are left"},
	{"fakequant", "lower", "lower turns the FakeQuant nodes that fakequant inserts into operators of ONNX"},
	{"fold", "lower", "what lower writes is no constant arithmetic any more"},
}

var passName = regexp.MustCompile(`^[a-z][a-z0-9]*$`)

// Validate checks the table of passes and the order constraints: names, documentation, duplicates, cycles.
func Validate() error {
	var errs []error
	seen := map[string]bool{}
	for _, p := range All {
		switch {
		case !passName.MatchString(p.Name):
			errs = append(errs, fmt.Errorf("pass %q: a name is lower-case letters and digits", p.Name))
		case seen[p.Name]:
			errs = append(errs, fmt.Errorf("pass %q: listed twice", p.Name))
		case p.Doc == "":
			errs = append(errs, fmt.Errorf("pass %q: has no documentation", p.Name))
		case p.parse == nil:
			errs = append(errs, fmt.Errorf("pass %q: was not made by Define", p.Name))
		}
		seen[p.Name] = true
		for _, o := range p.Options {
			if o.Doc == "" {
				errs = append(errs, fmt.Errorf("pass %q: option %q has no documentation", p.Name, o.Name))
			}
		}
	}
	after := map[string][]string{}
	for _, o := range Orders {
		if !seen[o.Before] || !seen[o.After] || o.Reason == "" {
			errs = append(errs, fmt.Errorf("order constraint %q before %q: unknown pass or no reason", o.Before, o.After))
		}
		after[o.Before] = append(after[o.Before], o.After)
	}
	for _, p := range All {
		if reaches(after, p.Name, p.Name, map[string]bool{}) {
			errs = append(errs, fmt.Errorf("pass %q: the order constraints put it before itself", p.Name))
		}
	}
	return errors.Join(errs...)
}

func reaches(after map[string][]string, from, to string, seen map[string]bool) bool {
	for _, next := range after[from] {
		if next == to {
			return true
		}
		if !seen[next] {
			seen[next] = true
			if reaches(after, next, to, seen) {
				return true
			}
		}
	}
	return false
}

// Unit is all that a pass may touch.
type Unit struct {
	Model   *ir.Model
	Policy  *Policy    // nil: every site stays float
	Samples ir.Samples // calibration inputs; nil: there are none
	Report  *Report    // nil: Run makes one
	Log     *slog.Logger
	// Cache keeps calibrated ranges between runs; nil: none. CacheKey must identify the model and the samples.
	Cache    *calib.Cache
	CacheKey string
	// Progress is told how far the pass at work is; nil: nobody listens.
	Progress func(Step)

	Seed          int64
	Jobs          int             // samples at a time; 0: one for each core
	Runtime       runtime.Options // for runs of the model: memory limit
	KeepQuantized bool            // leave quantized sites as they are instead of refusing the model
	DryRun        bool            // decide and report, edit nothing, run nothing
	Profile       bool            // fakequant fills Report.Profiles
	Fits          *Fits           // what fakequant fits is kept here and taken from here; nil: each run fits anew
	Stats         *calib.Stats    // what calibration has seen is kept here and taken from here; nil: each run looks anew
	Reference     *Reference      // what is kept of the model's first runs; nil: nothing
	Scratch       *store.Scratch  // where results go that would not fit into memory; nil: all stay there
	Debug         Debug

	entry  *PassEntry // of the pass at work
	site   string     // the site it works on, for the message of a panic
	fitted map[fitKey]rounded

	changed bool // the model computes something else than it did, be it by rounding

	own       map[*ir.Node]bool   // quantization nodes that passes of this run have inserted for good
	clusters  map[*ir.Value][]int // cluster of each column of a weight, in the order in which its inputs are made
	gathered  []*gathering
	reordered []reordered                 // constants that rptq has permuted, in turn
	folded    map[*ir.Value]*foldedWeight // weights that hold rounded values and stay constants
}

// Step is one report of progress.
type Step struct {
	Pass  string
	What  string // "samples", "sites"
	Done  int
	Total int // 0: unknown
}

// at notes the site that the pass now works on.
func (u *Unit) at(site string) { u.site = site }

// edit counts one change of the model.
func (u *Unit) edit() { u.entry.Edits++ }

// skip reports a site that the pass leaves as it is, and why.
func (u *Unit) skip(site, reason string) {
	u.entry.Skipped = append(u.entry.Skipped, Skip{site, reason})
}

// note reports what is no site's matter: warnings.
func (u *Unit) note(text string) { u.entry.Notes = append(u.entry.Notes, text) }

// did reports what the pass did to a site.
func (u *Unit) did(site, what string) {
	u.entry.Changed = append(u.entry.Changed, Change{site, what})
}

func (u *Unit) progress(what string, done, total int) {
	if u.Progress != nil {
		u.Progress(Step{u.entry.Name, what, done, total})
	}
}

type fitKey struct {
	value  *ir.Value
	scheme numfmt.Scheme
	axis   int
}

// rounded is a weight that a pass has rounded: with which parameters, and from which values.
type rounded struct {
	params numfmt.Params
	from   *ir.Tensor
}

// SetFit records the parameters with which a weight's values were rounded, so that fakequant stores exactly these and does
// not fit the rounded values again, and the values before, which it measures the error against. axis is the channel or block
// axis of the weight.
func (u *Unit) SetFit(weight *ir.Value, s numfmt.Scheme, axis int, p numfmt.Params, from *ir.Tensor) {
	if u.fitted == nil {
		u.fitted = map[fitKey]rounded{}
	}
	u.fitted[fitKey{weight, s, axis}] = rounded{p, from}
}

// sites returns the model's sites.
func (u *Unit) sites() []*Site { return findSites(u.Model, u.own) }

// hasFit reports whether an earlier pass rounded the weight.
func (u *Unit) hasFit(weight *ir.Value) bool {
	for k := range u.fitted {
		if k.value == weight {
			return true
		}
	}
	return false
}

// foldedWeight is a weight that an earlier pass has rounded to a grid which no node can hold.
type foldedWeight struct {
	scheme string // for the report
	stats  measures
}

// fold notes that a weight holds rounded values and is to stay a constant.
func (u *Unit) fold(weight *ir.Value, f *foldedWeight) {
	if u.folded == nil {
		u.folded = map[*ir.Value]*foldedWeight{}
	}
	u.folded[weight] = f
}

// describe writes what is known of the weight into a report's entry.
func (f *foldedWeight) describe(e *SiteEntry) {
	e.Scheme, e.Amax = f.scheme, Measure(f.stats.amax)
	f.stats.describe(e)
	e.ClipFraction = NotMeasured
}
