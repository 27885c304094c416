package recipe

import (
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/qsimc/qsimc/ir/numfmt"
	"github.com/qsimc/qsimc/passes"
)

// ortKeys are the keys of ONNX Runtime's quantizer that a recipe may use in place of the policy's; see foreign.
type ortKeys struct {
	node                   ast.Node // the first, for messages
	weight, activation     string
	perChannel, reduce     *bool
	symWeight, symActivate *bool
	exclude                []passes.Rule
}

// refused are keys of ONNX Runtime's quantizer that have no meaning here, with what to write instead.
var refused = map[string]string{
	"quant_format":             "use the option format of the step lower, or --format",
	"op_types_to_quantize":     "use policy.default with none, and policy.sites: [{op: …}] for each type",
	"nodes_to_quantize":        "use policy.default with none, and policy.sites: [{match: …}] for each node",
	"extra_options":            "use the keys of the recipe",
	"model_input":              "the model is an argument of the command",
	"model_output":             "use -o",
	"calibration_data_reader":  "use samples",
	"calibration_method":       "use policy.calibrate",
	"use_external_data_format": "use --external-data",
	"quantization_mode":        "static and dynamic are parts of a scheme: int8/dynamic",
	"static":                   "static and dynamic are parts of a scheme: int8/dynamic",
	"calibration_providers":    "calibration runs on qsimc's own runtime",
	"calibrate_tensor_shapes":  "calibration needs no shapes",
	"block_size":               "block is a part of a scheme: int4/block=32",
	"bits":                     "the format is a part of a scheme: int4",
	"is_symmetric":             "sym and asym are parts of a scheme: int4/block=32/asym",
	"smooth_quant":             "use the pass smoothquant",
	"optimize_model":           "use the pass fold",
}

var ortTypes = map[string]string{
	"QInt8": "int8", "QUInt8": "uint8", "QInt16": "int16", "QUInt16": "uint16", "QInt4": "int4", "QUInt4": "uint4",
	"QFLOAT8E4M3FN": "e4m3",
}

var ortMethods = map[string]string{"MinMax": "max", "Entropy": "entropy", "Percentile": "percentile"}

// foreign understands keys as ONNX Runtime's quantizer names them, or says which key to use instead.
func (d *decoder) foreign(key string, k, v ast.Node) (bool, error) {
	if instead, ok := refused[key]; ok {
		return true, d.errorf(k, "key %q is ONNX Runtime's and not taken: %s", key, instead)
	}
	o := &d.ort
	var err error
	switch key {
	case "weight_type":
		o.weight, err = d.ortType(v, key)
	case "activation_type":
		o.activation, err = d.ortType(v, key)
	case "per_channel":
		o.perChannel, err = d.flag(v, key)
	case "reduce_range":
		o.reduce, err = d.flag(v, key)
	case "WeightSymmetric":
		o.symWeight, err = d.flag(v, key)
	case "ActivationSymmetric":
		o.symActivate, err = d.flag(v, key)
	case "calibrate_method":
		var s string
		if s, err = d.text(v, key); err == nil {
			s = s[strings.LastIndexByte(s, '.')+1:]
			if d.r.Policy.Calibrate = ortMethods[s]; d.r.Policy.Calibrate == "" {
				err = d.errorf(v, "calibrate_method: %q is not taken; use policy.calibrate", s)
			}
		}
	case "nodes_to_exclude":
		err = d.excluded(v)
	default:
		return false, nil
	}
	if o.node == nil {
		o.node = k
	}
	return true, err
}

func (d *decoder) ortType(n ast.Node, what string) (string, error) {
	s, err := d.text(n, what)
	if err != nil {
		return "", err
	}
	if t, ok := ortTypes[s[strings.LastIndexByte(s, '.')+1:]]; ok {
		return t, nil
	}
	return "", d.errorf(n, "%s: %q is not known, wanted QInt8, QUInt8, QInt16, QUInt16, QInt4 or QUInt4", what, s)
}

func (d *decoder) flag(n ast.Node, what string) (*bool, error) {
	b, ok := n.(*ast.BoolNode)
	if !ok {
		return nil, d.errorf(n, "%s: wanted true or false, found %s", what, kindOf(n))
	}
	return &b.Value, nil
}

func (d *decoder) excluded(n ast.Node) error {
	nodes, err := d.list(n, "nodes_to_exclude")
	if err != nil {
		return err
	}
	for _, s := range nodes {
		name, err := d.text(s, "nodes_to_exclude")
		if err != nil {
			return err
		}
		r := passes.Rule{Match: name, Where: fmt.Sprintf("%s:%d", d.file, s.GetToken().Position.Line)}
		if err := r.Set(numfmt.Weight, "none"); err != nil {
			return err
		}
		if err := r.Set(numfmt.Input, "none"); err != nil {
			return err
		}
		d.ort.exclude = append(d.ort.exclude, r)
	}
	return nil
}

// finishForeign turns the collected keys into schemes of the policy's default.
func (d *decoder) finishForeign() error {
	o := &d.ort
	if o.node == nil {
		return nil
	}
	p := &d.r.Policy
	p.Sites = append(p.Sites, o.exclude...)
	if o.weight != "" || o.perChannel != nil || o.symWeight != nil || o.reduce != nil {
		if p.Default.Weights != nil {
			return d.errorf(o.node, "policy.default.weights and ONNX Runtime's keys for weights both appear: keep one of them")
		}
		s := o.weight
		if s == "" {
			s = "int8"
		}
		if o.perChannel != nil && *o.perChannel {
			s += "/axis=out"
		}
		if err := p.Default.Set(numfmt.Weight, withSymmetry(s, o.symWeight, true, o.reduce)); err != nil {
			return d.at(o.node, err)
		}
	}
	if o.activation != "" || o.symActivate != nil {
		if p.Default.Inputs != nil {
			return d.errorf(o.node, "policy.default.inputs and ONNX Runtime's keys for activations both appear: keep one of them")
		}
		s := o.activation
		if s == "" {
			s = "int8"
		}
		if err := p.Default.Set(numfmt.Input, withSymmetry(s, o.symActivate, false, o.reduce)); err != nil {
			return d.at(o.node, err)
		}
	}
	return nil
}

// withSymmetry adds what ONNX Runtime takes for granted: weights symmetric unless told otherwise, activations not.
func withSymmetry(scheme string, said *bool, usual bool, reduce *bool) string {
	sym := usual
	if said != nil {
		sym = *said
	}
	format, _, _ := strings.Cut(scheme, "/")
	if signed := !strings.HasPrefix(format, "uint"); strings.Contains(format, "int") && signed != sym {
		if sym {
			scheme += "/sym"
		} else {
			scheme += "/asym"
		}
	}
	if reduce != nil && *reduce && (format == "int8" || format == "uint8") {
		scheme += "/narrow7"
	}
	return scheme
}
