package main

import (
	"encoding/json"
	"os"
	"time"

	"github.com/cheggaaa/pb/v3"
	"golang.org/x/term"
)

// meter shows the progress of one task: a bar with rate and ETA on a terminal, JSON events, or nothing.
type meter struct {
	bar   *pb.ProgressBar
	enc   *json.Encoder
	label string
	total int
	begin time.Time
}

// event is a line of --progress json.
type event struct {
	Task    string  `json:"task"`
	Done    int     `json:"done"`
	Total   int     `json:"total"` // 0: not known
	Seconds float64 `json:"seconds"`
	ETA     float64 `json:"eta_seconds,omitempty"`
}

// barTemplate is the bar: what it works on, how much of it is done, at what rate, and the time it still takes.
const barTemplate = `{{string . "label"}} {{counters . }} {{bar . }} {{percent . }} {{speed . "%s/s"}} {{rtime . "ETA %s"}}`

// meter starts a task of total steps, 0 if their number is not known.
func (a *app) meter(label string, total int) *meter {
	m := &meter{label: label, total: total, begin: time.Now()}
	switch {
	case a.progress == "json":
		m.enc = json.NewEncoder(a.err)
	case a.progress == "auto" && !a.quiet && a.terminal():
		m.bar = pb.New(max(total, 0)).SetTemplateString(barTemplate).Set("label", label).Set(pb.Terminal, true).Set(pb.CleanOnFinish, true).
			SetRefreshRate(100 * time.Millisecond).SetWriter(a.err).Start()
	}
	return m
}

func (a *app) terminal() bool {
	f, ok := a.err.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// set says that done steps are finished.
func (m *meter) set(done int) {
	switch {
	case m.bar != nil:
		m.bar.SetCurrent(int64(done))
	case m.enc != nil:
		e := event{Task: m.label, Done: done, Total: m.total, Seconds: time.Since(m.begin).Seconds()}
		if done > 0 && m.total >= done {
			e.ETA = e.Seconds / float64(done) * float64(m.total-done)
		}
		_ = m.enc.Encode(e)
	}
}

// describe changes what the bar says it works on.
func (m *meter) describe(what string) {
	if m.bar != nil {
		m.bar.Set("label", what)
	}
}

// stop ends the task.
func (m *meter) stop() {
	if m.bar != nil {
		m.bar.Finish()
	}
}
