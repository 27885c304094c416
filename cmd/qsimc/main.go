// Command qsimc is the ONNX quantization compiler: it reads a model, rewrites its graph into any number format with any
// method, runs it, and writes an ONNX file that any runtime runs.
//
// The command line is described in `qsimc help`; it is a contract that scripts lean on.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	goruntime "runtime"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit statuses.
const (
	exitOK       = 0
	exitFailed   = 1 // it failed, or a check failed
	exitUsage    = 2 // wrong usage
	exitCanceled = 130
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50) // the heap is large tensors without pointers: collecting is cheap, garbage is not
	}
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// app is what every command shares: where output goes and the common flags.
type app struct {
	out, err io.Writer
	json     bool
	quiet    bool
	verbose  bool
	jobs     int
	seed     int64
	progress string
}

// usageError marks errors that end with status 2.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// errCheck is returned by commands that have printed what failed.
var errCheck = errors.New("a check failed")

// run is main without the process: it returns the exit status.
func run(ctx context.Context, args []string, out, err io.Writer) int {
	a := &app{out: out, err: err}
	root := a.root()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(err)
	e := root.ExecuteContext(ctx)
	switch {
	case e == nil:
		return exitOK
	case errors.Is(ctx.Err(), context.Canceled):
		fmt.Fprintln(err, "qsimc: interrupted")
		return exitCanceled
	case errors.Is(e, errCheck):
		return exitFailed
	}
	fmt.Fprintln(err, "qsimc:", e)
	var u usageError
	if errors.As(e, &u) {
		return exitUsage
	}
	return exitFailed
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "qsimc",
		Short:         "the ONNX quantization compiler",
		Long:          "qsimc reads an ONNX model, rewrites its graph into any number format with any method, runs it, and writes an ONNX file that any runtime runs.",
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q; `qsimc help` lists them", args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error {
			if err := c.Help(); err != nil {
				return err
			}
			return usagef("no command given")
		},
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.start() },
	}
	root.SetVersionTemplate("qsimc {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	f := root.PersistentFlags()
	f.BoolVar(&a.json, "json", false, "one JSON document on stdout and nothing else there")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "no progress, no notes on stderr")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "say more on stderr")
	f.IntVar(&a.jobs, "jobs", 0, "cores to use (default: all)")
	f.Int64Var(&a.seed, "seed", 0, "seed of everything pseudo-random")
	f.StringVar(&a.progress, "progress", "auto", "auto draws on a terminal, json writes events to stderr, none")
	root.AddCommand(a.commands()...)
	root.CompletionOptions.HiddenDefaultCmd = true
	return root
}

// start applies the common flags.
func (a *app) start() error {
	switch a.progress {
	case "auto", "json", "none":
	default:
		return usagef("--progress %q: wanted auto, json or none", a.progress)
	}
	if a.jobs < 0 {
		return usagef("--jobs %d: wanted 0 (all cores) or more", a.jobs)
	}
	if a.jobs > 0 {
		goruntime.GOMAXPROCS(a.jobs)
	}
	return nil
}

// log is where passes and commands say what is worth knowing.
func (a *app) log() *slog.Logger {
	level := slog.LevelWarn
	switch {
	case a.quiet:
		level = slog.LevelError
	case a.verbose:
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, at slog.Attr) slog.Attr {
		if at.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return at
	}}))
}

// printJSON writes one document to stdout.
func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// args makes cobra's argument checks usage errors.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, a []string) error {
		if err := check(c, a); err != nil {
			return usagef("%s: %w", c.Name(), err)
		}
		return nil
	}
}

// version is the module's version as built.
func version() string {
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" && b.Main.Version != "(devel)" {
		return b.Main.Version
	}
	return "devel"
}
