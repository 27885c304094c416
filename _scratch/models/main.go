package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/qsimc/qsimc/runtime/conform"
)

func main() {
	dirs, err := conform.Find(os.Args[1:]...)
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Second)
	defer cancel()
	t := time.Now()
	s := conform.Run(ctx, dirs, conform.Options{Jobs: 1}, func(c conform.Case) {
		if c.Status != conform.Pass || len(dirs) < 60 {
			d := c.Detail
			if len(d) > 400 {
				d = d[:400]
			}
			fmt.Println(c.Status, c.Name, d, time.Since(t).Round(time.Millisecond))
		}
		t = time.Now()
	})
	fmt.Println("passed", s.Passed, "failed", s.Failed, "unsupported", s.Unsupported, "skipped", s.Skipped)
}
