package main

import (
	"github.com/qsimc/qsimc/frontend"
	"github.com/qsimc/qsimc/passes/recipe"
	"github.com/spf13/cobra"
)

// sourceFlags say how text and images become samples.
type sourceFlags struct {
	tokenizer, preprocess, labels string
	seqLen                        int
}

func (f *sourceFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.tokenizer, "tokenizer", "", "tokenizer.json (byte-level BPE) for samples that are a text file")
	c.Flags().IntVar(&f.seqLen, "seq-len", 0, "tokens in a sequence of a text file")
	c.Flags().StringVar(&f.preprocess, "preprocess", "",
		"for samples that are a folder of images: 'resize=256 crop=224 scale=1/255 mean=R,G,B std=R,G,B layout=nchw|nhwc channels=rgb|bgr|gray'")
}

// options returns them as the data reader takes them.
func (f *sourceFlags) options(count int, seed int64) frontend.DataOptions {
	return frontend.DataOptions{Count: count, Seed: uint64(seed), Tokenizer: f.tokenizer, SeqLen: f.seqLen, Preprocess: f.preprocess, Labels: f.labels}
}

// sampleOptions returns how a recipe's samples are read.
func sampleOptions(s recipe.Samples, seed int64) frontend.DataOptions {
	return frontend.DataOptions{Count: s.Count, Seed: uint64(seed), Tokenizer: s.Tokenizer, SeqLen: s.SeqLen, Preprocess: s.Preprocess}
}
