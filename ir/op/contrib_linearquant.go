package op

// ONNX Runtime's QuantizeLinear and DequantizeLinear are the standard ones of opset 13 for types that those lacked.
var (
	msQuantizeLinearDef   = ofMicrosoft(quantizeLinearDef)
	msDequantizeLinearDef = ofMicrosoft(dequantizeLinearDef)
)

// ofMicrosoft copies a standard definition into ONNX Runtime's domain.
func ofMicrosoft(d *Def) *Def {
	c := *d
	c.Domain, c.Since, c.Versions, c.Upgrades = Microsoft, 1, []int{1}, nil
	return &c
}
