package numfmt_test

import (
	"fmt"
	"log"

	"github.com/qsimc/qsimc/ir/numfmt"
)

// A weight of a MatMul, K×N, is quantized in blocks of two along K: simulated, and as the codes a file stores.
func Example() {
	s, err := numfmt.ParseScheme("int4/block=2", numfmt.Weight)
	if err != nil {
		log.Fatal(err)
	}
	w := []float32{
		7, 1,
		-3.2, 0.5,
		0.7, -14,
	}
	l, err := s.Layout([]int{3, 2}, numfmt.Axes{K: 0, Out: 1})
	if err != nil {
		log.Fatal(err)
	}
	p, err := s.FitData(w, l)
	if err != nil {
		log.Fatal(err)
	}
	y := make([]float32, len(w))
	if err := s.Apply(y, w, l, p); err != nil {
		log.Fatal(err)
	}
	c, err := s.Encode(w, l, p)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("scales", l.ScaleShape(), p.Scale)
	fmt.Println("values", y)
	fmt.Printf("codes %s % x\n", c.Elem, c.Data)
	// Output:
	// scales [2 2] [1 0.14285715 0.1 2]
	// values [7 1 -3 0.42857146 0.7 -14]
	// codes INT4 77 3d 97
}

// Formats are found by name, or made from the name.
func ExampleLookup() {
	for _, name := range []string{"e4m3", "e3m4b5", "e2m1x"} {
		f, err := numfmt.Lookup(name)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(f, f.Grid())
	}
	// Output:
	// e4m3 ±{0..0.015625 step 2^-9, then 8 a binade to 448}, NaN
	// e3m4b5 ±{0..0.0625 step 2^-8, then 16 a binade to 7.75}
	// unknown number format "e2m1x"; near names: e2m1, e2m3
}

// The normal form of a scheme says what depends on the role.
func ExampleScheme_String() {
	s, err := numfmt.ParseScheme("int4/abfp:64", numfmt.Input)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(s)
	fmt.Println(s.Text(numfmt.Input))
	// Output:
	// int4/block=64/dynamic/scale=bf16
	// int4/block=64/scale=bf16
}
