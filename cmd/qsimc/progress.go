package main

import (
	"encoding/json"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// meter shows the progress of one task: a bar with rate and ETA on a terminal, JSON events, or nothing.
type meter struct {
	bar   *progressbar.ProgressBar
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

// meter starts a task of total steps, 0 if their number is not known.
func (a *app) meter(label string, total int) *meter {
	m := &meter{label: label, total: total, begin: time.Now()}
	switch {
	case a.progress == "json":
		m.enc = json.NewEncoder(a.err)
	case a.progress == "auto" && !a.quiet && a.terminal():
		if total <= 0 {
			total = -1
		}
		m.bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(a.err), progressbar.OptionSetDescription(label),
			progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetPredictTime(true),
			progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish(), progressbar.OptionSetWidth(24))
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
		_ = m.bar.Set(done) // drawing is best effort
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
		m.bar.Describe(what)
	}
}

// stop ends the task.
func (m *meter) stop() {
	if m.bar != nil {
		_ = m.bar.Finish()
	}
}
