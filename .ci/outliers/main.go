// Outliers writes a copy of a model with the outlier channels of large language models, for examples/paper/outliers.yaml:
//
//	go run ./.ci/outliers zoo/opt-mini/model.onnx opt-mini-outlier.onnx
package main

import (
	"fmt"
	"os"

	"github.com/qsimc/qsimc/backend"
	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/testdata/shared"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: outliers MODEL.onnx COPY.onnx")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "outliers:", err)
		os.Exit(1)
	}
}

func write(from, to string) error {
	m, err := frontend.Load(from)
	if err != nil {
		return err
	}
	if err := shared.InjectOutliers(m); err != nil {
		return err
	}
	return backend.Save(to, m, backend.Options{})
}
