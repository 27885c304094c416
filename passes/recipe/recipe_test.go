package recipe_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/qsimc/qsimc/passes/recipe"
)

func TestNormalForm(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ in, want string }{
		"empty": {"", ""},
		"the whole": {`
preset: w8a8
samples: {path: calib.npy, count: 64}
policy:
  default: {weights: int4/axis=out, inputs: int8, outputs: none}
  attention: {inputs: int8}
  lookup: {weights: none}
  sites:
    - {match: "re:.*fc2", weights: int4/block=64}
    - {op: Conv, weights: int8/axis=out, inputs: uint8}
    - match: lm_head
      weights: none
      inputs: none
  calibrate: percentile p=99.9
passes: [fold, "fakequant measure=0", lower]
`, `preset: w8a8
samples: {path: calib.npy, count: 64}
policy:
  default: {weights: int4/axis=out, inputs: int8, outputs: none}
  attention: {inputs: int8}
  lookup: {weights: none}
  sites:
    - {match: "re:.*fc2", weights: int4/block=64}
    - {op: Conv, weights: int8/axis=out, inputs: uint8}
    - {match: "lm_head", weights: none, inputs: none}
  calibrate: percentile p=99.9
passes: [fold, "fakequant measure=0", lower]
`},
		"ONNX Runtime's keys": {`
per_channel: true
weight_type: QInt8
activation_type: QUInt8
reduce_range: true
calibrate_method: Entropy
nodes_to_exclude: [/lm_head/MatMul]
`, `policy:
  default: {weights: int8/axis=out/narrow7, inputs: uint8/narrow7}
  sites:
    - {match: "/lm_head/MatMul", weights: none, inputs: none}
  calibrate: entropy
`},
		"ONNX Runtime's activations are asymmetric": {"activation_type: QInt8\n", "policy:\n  default: {inputs: int8/asym}\n"},
		"one key":         {"policy:\n  default:\n    weights: int8\n", "policy:\n  default: {weights: int8}\n"},
		"no passes":       {"passes: []\n", "passes: []\n"},
		"quoted path":     {"samples: {path: \"my calib.npz\"}\n", "samples: {path: \"my calib.npz\"}\n"},
		"number as count": {"samples:\n  count: 7\n", "samples: {count: 7}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := recipe.Parse("r.yaml", []byte(c.in))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, r.String()); d != "" {
				t.Errorf("normal form (-want +got):\n%s", d)
			}
			again, err := recipe.Parse("r.yaml", []byte(r.String()))
			if err != nil {
				t.Fatal(err)
			}
			if again.String() != r.String() {
				t.Errorf("reads back as:\n%s", again)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want string }{
		{"polcy: {}\n", `r.yaml:1:1: recipe: unknown key "polcy", wanted one of passes, policy, preset, samples`},
		{"policy:\n  default: {wieghts: int8}\n", `r.yaml:2:13: policy.default: unknown key "wieghts", wanted one of inputs, outputs, weights`},
		{"policy:\n  default: {weights: int9x}\n", `r.yaml:2:22: scheme "int9x"`},
		{"policy:\n  default: {weights: int8/dynamic}\n", "a weight's scales are static"},
		{"policy:\n  sites:\n    - {weights: int8}\n", "selects by match or op"},
		{"policy:\n  sites:\n    - {op: Conv}\n", "gives no scheme"},
		{"policy:\n  calibrate: maximum\n", `r.yaml:2:14: calibrator "maximum"`},
		{"passes: [fold, smooth]\n", `r.yaml:1:16: passes: "smooth" is no pass`},
		{"passes: [lower, fakequant]\n", "fakequant must come before lower"},
		{"passes: fold\n", `r.yaml:1:9: passes: wanted a list, found "fold"`},
		{"preset: w9\n", `r.yaml:1:9: preset "w9" is unknown, wanted one of w8, w8a8, `},
		{"samples: {count: -1}\n", "wanted a number from 1 on"},
		{"samples: calib.npy\n", "wanted keys and values"},
		{"op_types_to_quantize: [MatMul]\n", `r.yaml:1:1: key "op_types_to_quantize" is ONNX Runtime's and not taken: use policy.default`},
		{"weight_type: QInt8\npolicy: {default: {weights: int8}}\n", "keep one of them"},
		{"a: b: c\n", "r.yaml: "},
	} {
		_, err := recipe.Parse("r.yaml", []byte(c.in))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got error %v, want %s", c.in, err, c.want)
		}
	}
}

func TestPresets(t *testing.T) {
	t.Parallel()
	for _, p := range recipe.Presets {
		r, err := recipe.Preset(p.Name)
		if err != nil {
			t.Errorf("%s: %v", p.Name, err)
			continue
		}
		if pl, err := r.Pipeline(); err != nil || pl.Len() == 0 {
			t.Errorf("%s: pipeline %v, %v", p.Name, pl, err)
		}
		if p.Doc == "" {
			t.Errorf("%s: has no documentation", p.Name)
		}
	}
}

func TestOverPreset(t *testing.T) {
	t.Parallel()
	r, err := recipe.Parse("r.yaml", []byte("preset: w8a8\npolicy:\n  default: {inputs: uint8}\n  sites: [{op: Gemm, weights: none}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	full, err := r.Resolved()
	if err != nil {
		t.Fatal(err)
	}
	want := "policy:\n  default: {weights: int8/axis=out, inputs: uint8}\n  sites:\n    - {op: Gemm, weights: none}\n  calibrate: max\npasses: [fold, fakequant, lower]\n"
	if d := cmp.Diff(want, full.String()); d != "" {
		t.Errorf("resolved (-want +got):\n%s", d)
	}
}
