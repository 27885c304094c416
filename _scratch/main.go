package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/qsimc/qsimc/ir/op"
	"github.com/qsimc/qsimc/runtime/conform"
)

const root = "/root/.cache/qsimc-shared/onnx-node-tests/"

func main() {
	re := regexp.MustCompile(os.Args[1])
	data, _ := os.ReadFile(root + "MANIFEST.tsv")
	var dirs []string
	ops := map[string]string{}
	for i, l := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		f := strings.Split(l, "\t")
		if i == 0 || f[0] == "light" && len(os.Args) < 3 {
			continue
		}
		hit := false
		missing := ""
		for _, o := range strings.Split(f[9], ",") {
			name, _, _ := strings.Cut(o, "*")
			hit = hit || re.MatchString(name)
			found := false
			for _, d := range op.Table() {
				found = found || d.Name == name
			}
			if !found {
				missing += " " + name
			}
		}
		if hit {
			d := root + f[0] + "/" + f[1]
			dirs = append(dirs, d)
			ops[d] = missing
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 120*time.Second)
	defer cancel()
	s := conform.Run(ctx, dirs, conform.Options{Jobs: 2}, func(c conform.Case) {
		if c.Status != conform.Pass && ops[c.Name] == "" {
			d := c.Detail
			if len(d) > 300 {
				d = d[:300]
			}
			fmt.Println(c.Status, strings.TrimPrefix(c.Name, root), d)
		}
	})
	fmt.Println("passed", s.Passed, "failed", s.Failed, "unsupported", s.Unsupported, "skipped", s.Skipped)
}
