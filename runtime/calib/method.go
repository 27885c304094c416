// Package calib observes the values of a running model and derives from what it saw the ranges that static quantizers use
// (METHODS.md §3).
//
//	r := calib.NewRange(method, scheme, -1)
//	err := calib.Sweep(ctx, m, samples, []calib.Probe{{Value: v, Into: r}}, calib.Options{})
//	lo, hi, err := r.Range()
package calib

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Method is a calibrator with its options.
type Method struct {
	Name       string  // a name of Methods
	Percentile float64 // p of percentile, in percent
	StartBin   int     // first candidate bin of mse and entropy
	FirstBatch bool    // hist=firstbatch: bins are laid over the first sample's range and extended, as the published toolkit does
	Sorted     bool    // hist=none: percentile sorts each sample's values and takes the largest result
	Momentum   float64 // share of the running value that moving-average keeps
}

// Info describes a calibrator for help texts.
type Info struct{ Name, Doc string }

// SeqMSE is the calibrator that also decides the ranges of weights, by the outputs of their products.
const SeqMSE = "seqmse"

// Methods lists the calibrators.
var Methods = []Info{
	{"max", "largest |x| (smallest and largest x for asymmetric formats) over all samples"},
	{"moving-average", "exponential average of each sample's largest |x| (of both ends for asymmetric formats) in file order, 0.99 old + 0.01 new (momentum=)"},
	{"percentile", "left edge of the histogram bin at which p percent (p=, default 99.99) of |x| are passed; asymmetric formats pass p percent at either end. hist=none sorts the values of each sample instead and averages the two at a rank between them; the largest of the samples counts"},
	{"entropy", "|x| whose histogram, quantized, has the least Kullback-Leibler divergence, candidates from bin start-bin= (128) on"},
	{"mse", "range with the least squared error over the histogram, candidates from bin start-bin= (128) on"},
	{"mse-exact", "range with the least squared error on the values themselves: a grid down to 2^-16 of the observed range, refined in two more passes over the samples"},
	{SeqMSE, "weights: of the shares k/20, k = 1…20, of each output channel's range the one with the least squared error of the product's outputs, whose inputs come from what is quantized before it, product by product in the order of the model; where channels share a scale, of all outputs together. Static activations: as mse-exact"},
	{"octav", "clipping range by the fixed point of the optimally clipped quantizer (Sakr et al.)"},
}

// ParseMethod reads a calibrator such as "mse", "percentile p=99.9" or "mse start-bin=1 hist=firstbatch".
func ParseMethod(text string) (Method, error) {
	f := strings.Fields(text)
	if len(f) == 0 {
		return Method{}, fmt.Errorf("calibrator %q: empty, wanted one of %s", text, names())
	}
	m := Method{Name: f[0], Percentile: 99.99, StartBin: 128, Momentum: 0.99}
	if !slices.ContainsFunc(Methods, func(i Info) bool { return i.Name == m.Name }) {
		return Method{}, fmt.Errorf("calibrator %q: unknown, wanted one of %s", f[0], names())
	}
	for _, opt := range f[1:] {
		key, val, _ := strings.Cut(opt, "=")
		if err := m.set(key, val); err != nil {
			return Method{}, fmt.Errorf("calibrator %q: option %q: %w", text, opt, err)
		}
	}
	return m, nil
}

func (m *Method) set(key, val string) error {
	takes := map[string][]string{
		"p": {"percentile"}, "start-bin": {"mse", "entropy"}, "hist": {"percentile", "mse", "entropy"}, "momentum": {"moving-average"},
	}
	if by, ok := takes[key]; !ok {
		return fmt.Errorf("unknown, wanted p, start-bin, hist or momentum")
	} else if !slices.Contains(by, m.Name) {
		return fmt.Errorf("%s does not take it, only %s", m.Name, strings.Join(by, ", "))
	}
	var err error
	switch key {
	case "p":
		if m.Percentile, err = strconv.ParseFloat(val, 64); err != nil || !(m.Percentile > 0 && m.Percentile <= 100) {
			return fmt.Errorf("found %q, wanted a number in (0, 100]", val)
		}
	case "momentum":
		if m.Momentum, err = strconv.ParseFloat(val, 64); err != nil || !(m.Momentum >= 0 && m.Momentum < 1) {
			return fmt.Errorf("found %q, wanted a number in [0, 1)", val)
		}
	case "start-bin":
		if m.StartBin, err = strconv.Atoi(val); err != nil || m.StartBin < 1 || m.StartBin >= Bins {
			return fmt.Errorf("found %q, wanted an integer in [1, %d)", val, Bins)
		}
	case "hist":
		if val != "firstbatch" && val != "twopass" && (val != "none" || m.Name != "percentile") {
			return fmt.Errorf("found %q, wanted twopass or firstbatch (none: percentile only)", val)
		}
		m.FirstBatch, m.Sorted = val == "firstbatch", val == "none"
	}
	return nil
}

// String returns the normal form, options at their defaults left out.
func (m Method) String() string {
	s := m.Name
	if m.Name == "percentile" && m.Percentile != 99.99 {
		s += fmt.Sprintf(" p=%v", m.Percentile)
	}
	if (m.Name == "mse" || m.Name == "entropy") && m.StartBin != 128 {
		s += fmt.Sprintf(" start-bin=%d", m.StartBin)
	}
	if m.Name == "moving-average" && m.Momentum != 0.99 {
		s += fmt.Sprintf(" momentum=%v", m.Momentum)
	}
	if m.FirstBatch {
		s += " hist=firstbatch"
	}
	if m.Sorted {
		s += " hist=none"
	}
	return s
}

// histogram reports whether the method needs the distribution and not only the range.
func (m Method) histogram() bool {
	switch m.Name {
	case "percentile":
		return !m.Sorted
	case "entropy", "mse", "octav":
		return true
	}
	return false
}

// signed reports whether the histogram of an asymmetric scheme counts values and not magnitudes.
func (m Method) signed() bool { return m.Name == "percentile" || m.Name == "mse" }

func names() string {
	var s []string
	for _, i := range Methods {
		s = append(s, i.Name)
	}
	return strings.Join(s, ", ")
}
