package backend

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/ir/store"
)

// Options say how a model is stored.
type Options struct {
	// ExternalData puts the weights into a file of their own beside the model, named as the model with ".data" added.
	ExternalData bool
	// ExternalThreshold is the size of the model file in bytes from which that is done without being asked; 0 means
	// DefaultThreshold.
	ExternalThreshold int64
	// Stop ends the writing when it is closed: nothing is left behind and the error is ErrStopped. nil never does.
	Stop <-chan struct{}
}

// DefaultThreshold keeps files well below the 2 GiB that protobuf can hold.
const DefaultThreshold = 1_500_000_000

// ErrStopped says that Options.Stop was closed.
var ErrStopped = errors.New("stopped")

const (
	alignment = 4096 // of tensors in the data file: a page, so that readers can map them
	external  = 1024 // smaller tensors stay in the model
)

// Save writes a model as an ONNX file. It writes temporary files in the same folder and renames them when they are whole, so
// that a reader never sees half a file and a model may be written over the file it was loaded from. Tensors are copied from
// where they lie, one after the other, and never gathered in memory.
//
// The IR version is the model's, raised where something in the model needs a newer one. A model of an IR version below 4
// lists its initializers among its inputs; when its version is raised they are initializers only. An output slot whose value
// has another name than the slot gets an Identity. Types of inner values are written for those that came with one.
func Save(path string, m *ir.Model, o Options) error {
	if err := save(path, m, o); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func save(path string, m *ir.Model, o Options) error {
	threshold := o.ExternalThreshold
	if threshold == 0 {
		threshold = DefaultThreshold
	}
	msg, err := encode(m, nil)
	if err != nil {
		return err
	}
	var data *dataFile
	if o.ExternalData || msg.size > threshold {
		data = &dataFile{at: map[*ir.Tensor]int64{}}
		out := &outside{location: filepath.Base(path) + ".data", place: data.place}
		if msg, err = encode(m, out); err != nil {
			return err
		}
	}
	if err := fits(msg); err != nil {
		return err
	}
	if data != nil && len(data.tensors) > 0 {
		err := replace(path+".data", o.Stop, data.write)
		if err != nil {
			return err
		}
	}
	return replace(path, o.Stop, msg.write)
}

// replace writes a file under a temporary name and renames it.
func replace(path string, stop <-chan struct{}, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	w := bufio.NewWriterSize(&stoppable{f, stop}, 1<<20)
	if err := write(w); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// stoppable is a writer that fails once stop is closed. It writes in pieces, so that it notices soon.
type stoppable struct {
	w    io.Writer
	stop <-chan struct{}
}

func (s *stoppable) Write(b []byte) (int, error) {
	const most = 16 << 20
	done := 0
	for {
		select {
		case <-s.stop:
			return done, ErrStopped
		default:
		}
		n, err := s.w.Write(b[done:min(done+most, len(b))])
		if done += n; err != nil || done == len(b) {
			return done, err
		}
	}
}

func (m *message) write(w io.Writer) error {
	for _, p := range m.pieces {
		if p.t == nil {
			if _, err := w.Write(p.b); err != nil {
				return err
			}
		} else if err := writeTensor(w, p.t); err != nil {
			return err
		}
	}
	return nil
}

func writeTensor(w io.Writer, t *ir.Tensor) error {
	if err := t.Load(); err != nil {
		return err
	}
	_, err := w.Write(t.Bytes())
	store.Release(t.Bytes())
	return err
}

// dataFile lays out the tensors that are stored outside of the model, each at a page of its own. A tensor that several
// constants share is stored once.
type dataFile struct {
	tensors []*ir.Tensor
	at      map[*ir.Tensor]int64
	end     int64
}

func (d *dataFile) place(t *ir.Tensor) (int64, bool) {
	if t.Size() < external {
		return 0, false
	}
	if at, ok := d.at[t]; ok {
		return at, true
	}
	at := (d.end + alignment - 1) / alignment * alignment
	d.at[t] = at
	d.tensors = append(d.tensors, t)
	d.end = at + int64(t.Size())
	return at, true
}

func (d *dataFile) write(w io.Writer) error {
	var at int64
	for _, t := range d.tensors {
		if _, err := w.Write(make([]byte, d.at[t]-at)); err != nil {
			return err
		}
		if err := writeTensor(w, t); err != nil {
			return err
		}
		at = d.at[t] + int64(t.Size())
	}
	return nil
}
