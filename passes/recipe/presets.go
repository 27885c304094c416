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
	{"w4-block32", "int4 weights with a scale for every 32 values along the contraction axis; activations stay float. Needs no samples.", `
policy:
  default: {weights: int4/block=32, inputs: none}
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
