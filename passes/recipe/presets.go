package recipe

import (
	"fmt"
	"slices"
	"strings"
)

// PresetInfo is a named recipe with its documentation.
type PresetInfo struct {
	Name string
	Doc  string
	YAML string
}

// Presets lists the presets (METHODS.md §14).
var Presets = []PresetInfo{
	{"w8", "int8 weights per output channel, fitted to their largest magnitude; activations stay float. Needs no samples.", `
policy:
  default: {weights: int8/axis=out, inputs: none}
passes: [fold, fakequant, lower]
`},
	{"w8a8", "int8 weights per output channel and int8 activations per tensor with static scales from the largest magnitude in the samples; " +
		"both operands of attention products and the head included.", `
policy:
  default: {weights: int8/axis=out, inputs: int8}
  calibrate: max
passes: [fold, fakequant, lower]
`},
	{"gptq-w4a16", "int4 weights per output channel with a zero point, rounded by GPTQ for the inputs that the samples make; activations and " +
		"the head stay float.", `
policy:
  default: {weights: int4/axis=out/asym, inputs: none}
  head: {weights: none, inputs: none}
passes: [fold, gptq, fakequant, lower]
`},
	{"rptq-ref", "RPTQ with the widths of its published code: int4 activations with a range for each cluster of channels, but what normalizations put out " +
		"and attention probabilities in 8 bits; int4 weights with a scale for each output channel and cluster of inputs, rounded by GPTQ. Ranges are " +
		"the largest of the samples; the published moving average (range=ema) cuts off what the average sample does not have. For 8-bit " +
		"activations set policy.default.inputs to int8. The head stays float.", `
policy:
  default: {weights: int4/axis=out/asym, inputs: int4}
  head: {weights: none, inputs: none}
passes: [fold, "rptq range=max", gptq, fakequant, lower]
`},
	{"rptq-strict", "rptq-ref with the same bits everywhere: 4 for all activations.", `
policy:
  default: {weights: int4/axis=out/asym, inputs: int4}
  head: {weights: none, inputs: none}
passes: [fold, "rptq range=max ln=0 p=0", gptq, fakequant, lower]
`},
	{"w4-block32", "int4 weights with a scale for every 32 values along the contraction axis; activations stay float. Needs no samples.", `
policy:
  default: {weights: int4/block=32, inputs: none}
passes: [fold, fakequant, lower]
`},
	{"abfp-w4a4", "adaptive block floating point: int4 weights and int4 activations in blocks of 64 along the contraction axis with bfloat16 scales, those of activations computed when the model runs; both operands of attention products and the head included. Needs no samples.", `
policy:
  default: {weights: int4/abfp:64, inputs: int4/abfp:64}
passes: [fold, fakequant, lower]
`},
	{"abfp-w4a8", "adaptive block floating point: int4 weights and int8 activations in blocks of 64 along the contraction axis with bfloat16 scales, those of activations computed when the model runs; both operands of attention products and the head included. Needs no samples.", `
policy:
  default: {weights: int4/abfp:64, inputs: int8/abfp:64}
passes: [fold, fakequant, lower]
`},
	{"abfp-w4ae4m3", "adaptive block floating point: int4 weights and e4m3 activations in blocks of 64 along the contraction axis with bfloat16 scales, those of activations computed when the model runs; both operands of attention products and the head included. Needs no samples.", `
policy:
  default: {weights: int4/abfp:64, inputs: e4m3/abfp:64}
passes: [fold, fakequant, lower]
`},
	{"abfp-e2m1", "adaptive block floating point: e2m1 weights and e2m1 activations in blocks of 64 along the contraction axis with bfloat16 scales, those of activations computed when the model runs; both operands of attention products and the head included. Needs no samples.", `
policy:
  default: {weights: e2m1/abfp:64, inputs: e2m1/abfp:64}
passes: [fold, fakequant, lower]
`},
	{"abfp-e1m2", "adaptive block floating point: e1m2 weights and e1m2 activations in blocks of 64 along the contraction axis with bfloat16 scales, those of activations computed when the model runs; both operands of attention products and the head included. Needs no samples.", `
policy:
  default: {weights: e1m2/abfp:64, inputs: e1m2/abfp:64}
passes: [fold, fakequant, lower]
`},
	{"w8a8-sq", "w8a8 after smoothquant: outliers of the activations that norms make move into the weights that read them.", `
policy:
  default: {weights: int8/axis=out, inputs: int8}
  calibrate: max
passes: [fold, smoothquant, fakequant, lower]
`},
	{"abfp-sq-w4a4", "abfp-w4a4 after smoothquant with alpha 0.5 at the published sites. Wants samples for smoothquant alone.", `
policy:
  default: {weights: int4/abfp:64, inputs: int4/abfp:64}
passes: [fold, smoothquant, fakequant, lower]
`},
	{"abfp-sq-w4a8", "abfp-w4a8 after smoothquant with alpha 0.5 at the published sites. Wants samples for smoothquant alone.", `
policy:
  default: {weights: int4/abfp:64, inputs: int8/abfp:64}
passes: [fold, smoothquant, fakequant, lower]
`},
	{"abfp-sq-w4ae4m3", "abfp-w4ae4m3 after smoothquant with alpha 0.5 at the published sites. Wants samples for smoothquant alone.", `
policy:
  default: {weights: int4/abfp:64, inputs: e4m3/abfp:64}
passes: [fold, smoothquant, fakequant, lower]
`},
	{"abfp-sq-e2m1", "abfp-e2m1 after smoothquant with alpha 0.5 at the published sites. Wants samples for smoothquant alone.", `
policy:
  default: {weights: e2m1/abfp:64, inputs: e2m1/abfp:64}
passes: [fold, smoothquant, fakequant, lower]
`},
	{"abfp-sq-e1m2", "abfp-e1m2 after smoothquant with alpha 0.5 at the published sites. Wants samples for smoothquant alone.", `
policy:
  default: {weights: e1m2/abfp:64, inputs: e1m2/abfp:64}
passes: [fold, smoothquant, fakequant, lower]
`},
	{"mse-w4a4", "int4 weights per output channel and int4 activations per tensor with static scales of the least squared error over the histogram of each input; both operands of attention products and the head included.", `
policy:
  default: {weights: int4/axis=out, inputs: int4}
  calibrate: mse
passes: [fold, fakequant, lower]
`},
	{"mse-w4a8", "int4 weights per output channel and int8 activations per tensor with static scales of the least squared error over the histogram of each input; both operands of attention products and the head included.", `
policy:
  default: {weights: int4/axis=out, inputs: int8}
  calibrate: mse
passes: [fold, fakequant, lower]
`},
	{"intfpqsim-fp8", "the released FP8 example of INT-FP-QSim: weights and activations cast to QPyTorch's float with 4 exponent and 3 mantissa bits without any scale, outputs to its 16-bit float. Needs no samples.", `
policy:
  default: {weights: qpt-e4m3, inputs: qpt-e4m3, outputs: qpt-e5m10}
passes: [fold, fakequant, lower]
`},
	{"intfpqsim-mse-w4a4", "mse-w4a4 with the coverage of INT-FP-QSim's code: inputs of attention products have dynamic scales per tensor, and histograms are laid over the range of the first sample.", `
policy:
  default: {weights: int4/axis=out, inputs: int4}
  attention: {inputs: int4/tensor/dynamic}
  calibrate: mse hist=firstbatch
passes: [fold, fakequant, lower]
`},
	{"intfpqsim-mse-w4a8", "mse-w4a8 with the coverage of INT-FP-QSim's code: inputs of attention products have dynamic scales per tensor, and histograms are laid over the range of the first sample.", `
policy:
  default: {weights: int4/axis=out, inputs: int8}
  attention: {inputs: int8/tensor/dynamic}
  calibrate: mse hist=firstbatch
passes: [fold, fakequant, lower]
`},
	{"mxfp4", "OCP microscaling: float4 e2m1 in blocks of 32 with power-of-two scales, weights and activations. Needs no samples.", `
policy:
  default: {weights: mxfp4, inputs: mxfp4}
passes: [fold, fakequant, lower]
`},
	{"mxint8", "OCP microscaling: 8-bit integers in blocks of 32 with power-of-two scales, weights and activations. Needs no samples.", `
policy:
  default: {weights: mxint8, inputs: mxint8}
passes: [fold, fakequant, lower]
`},
	{"nvfp4", "NVFP4: float4 e2m1 in blocks of 16 with e4m3 scales relative to one scale of the tensor, weights and activations. Needs no samples.", `
policy:
  default: {weights: nvfp4, inputs: nvfp4}
passes: [fold, fakequant, lower]
`},
}

// Preset returns the recipe of a preset.
func Preset(name string) (*Recipe, error) {
	i := slices.IndexFunc(Presets, func(p PresetInfo) bool { return p.Name == name })
	if i < 0 {
		var names []string
		for _, p := range Presets {
			names = append(names, p.Name)
		}
		return nil, fmt.Errorf("preset %q is unknown, wanted one of %s", name, strings.Join(names, ", "))
	}
	return Parse("preset "+name, []byte(Presets[i].YAML))
}
