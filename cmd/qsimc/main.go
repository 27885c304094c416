// Command qsimc is the ONNX quantization compiler.
package main

func main() {}
