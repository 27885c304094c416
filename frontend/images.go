package frontend

import (
	"encoding/csv"
	"errors"
	"fmt"
	"image"
	_ "image/jpeg" // decoders of the two formats
	_ "image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/qsimc/qsimc/ir"
)

// Preprocess says how an image becomes a tensor.
type Preprocess struct {
	Resize   [2]int    // width, height; a height of 0: the width is that of the shorter side; 0, 0: as it is
	Crop     [2]int    // of the centre, width and height; 0, 0: the whole
	Scale    float64   // factor of the values 0 to 255
	Mean     []float64 // by channel in the order of Channels, subtracted after scaling; nil: 0
	Std      []float64 // then divided by; nil: 1
	NHWC     bool      // channels last
	Channels string    // rgb, bgr or gray
}

// ParsePreprocess reads a text such as "resize=256 crop=224 scale=1/255 mean=0.485,0.456,0.406 std=0.229,0.224,0.225
// layout=nchw channels=rgb". A pixel's value v, 0 to 255, becomes (v·scale − mean) / std. resize=N makes the shorter side N
// long, resize=WxH both (bilinear, over all pixels that one covers where the image shrinks); crop=N or WxH takes the centre,
// its offsets rounded down. What is not given leaves the image as it is; scale is 1, layout nchw, channels rgb.
func ParsePreprocess(text string) (*Preprocess, error) {
	p := &Preprocess{Scale: 1, Channels: "rgb"}
	for _, word := range strings.Fields(text) {
		key, value, _ := strings.Cut(word, "=")
		var err error
		switch key {
		case "resize":
			p.Resize, err = parseSides(value)
			if !strings.Contains(value, "x") {
				p.Resize[1] = 0
			}
		case "crop":
			p.Crop, err = parseSides(value)
		case "scale":
			p.Scale, err = parseRatio(value)
		case "mean":
			p.Mean, err = parseFloats(value)
		case "std":
			p.Std, err = parseFloats(value)
			if slices.Contains(p.Std, 0) {
				err = errors.New("wanted values other than 0")
			}
		case "layout":
			if p.NHWC = value == "nhwc"; !p.NHWC && value != "nchw" {
				err = errors.New("wanted nchw or nhwc")
			}
		case "channels":
			if p.Channels = value; value != "rgb" && value != "bgr" && value != "gray" {
				err = errors.New("wanted rgb, bgr or gray")
			}
		default:
			err = errors.New("wanted resize, crop, scale, mean, std, layout or channels")
		}
		if err != nil {
			return nil, fmt.Errorf("preprocess: %q: %w", word, err)
		}
	}
	for _, list := range [][]float64{p.Mean, p.Std} {
		if len(list) > 1 && len(list) != p.channels() {
			return nil, fmt.Errorf("preprocess: %d values of mean or std for %d channels", len(list), p.channels())
		}
	}
	return p, nil
}

func (p *Preprocess) channels() int {
	if p.Channels == "gray" {
		return 1
	}
	return 3
}

func parseSides(s string) ([2]int, error) {
	w, h, two := strings.Cut(s, "x")
	if !two {
		h = w
	}
	a, err1 := strconv.Atoi(w)
	b, err2 := strconv.Atoi(h)
	if err1 != nil || err2 != nil || a < 1 || b < 1 || a > 1<<14 || b > 1<<14 {
		return [2]int{}, errors.New("wanted N or WxH, pixels from 1 to 16384")
	}
	return [2]int{a, b}, nil
}

func parseRatio(s string) (float64, error) {
	num, den, ok := strings.Cut(s, "/")
	if !ok {
		den = "1"
	}
	a, err1 := strconv.ParseFloat(num, 64)
	b, err2 := strconv.ParseFloat(den, 64)
	if f := a / b; err1 != nil || err2 != nil || f == 0 || math.IsNaN(f) || math.IsInf(f, 0) {
		return 0, errors.New("wanted a number or a ratio as 1/255")
	}
	return a / b, nil
}

func parseFloats(s string) ([]float64, error) {
	var out []float64
	for _, w := range strings.Split(s, ",") {
		f, err := strconv.ParseFloat(w, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, errors.New("wanted numbers separated by commas")
		}
		out = append(out, f)
	}
	return out, nil
}

// imageData makes samples of a folder of JPEG and PNG files: those that the labels list, in their order, or all in the order
// of their names. An image is decoded when its turn comes.
func imageData(dir string, m *ir.Model, o DataOptions) (*Data, error) {
	p, err := ParsePreprocess(o.Preprocess)
	if err != nil {
		return nil, err
	}
	inputs := m.Graph.FreeInputs()
	if len(inputs) != 1 {
		return nil, fmt.Errorf("%s: images are for a model with one input, this has %d", dir, len(inputs))
	}
	var items []labelled
	if o.Labels != "" {
		items, err = readLabels(o.Labels, dir)
	} else {
		items, err = listImages(dir)
	}
	if err != nil {
		return nil, err
	}
	if o.Count > 0 {
		items = items[:min(o.Count, len(items))]
	}
	batch := leading(m)
	if batch > 0 && o.Batch > 0 && o.Batch != batch {
		return nil, fmt.Errorf("a batch of %d was asked for, the model takes %d", o.Batch, batch)
	}
	batch = max(batch, o.Batch, 1)
	feeds := func(yield func(Feed, error) bool) {
		g := grouper{batch: batch}
		for _, it := range items {
			f, err := p.feed(it, m, o.Extra && o.Labels != "")
			if err != nil {
				yield(f, fmt.Errorf("%s: %w", it.file, err))
				return
			}
			if !g.add(f, yield) {
				return
			}
		}
		g.flush(yield)
	}
	return &Data{Len: (len(items) + batch - 1) / batch, feeds: feeds}, nil
}

type labelled struct {
	file  string
	label int64
}

func listImages(dir string) ([]labelled, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []labelled
	for _, e := range entries {
		switch strings.ToLower(filepath.Ext(e.Name())) {
		case ".jpg", ".jpeg", ".png":
			out = append(out, labelled{file: filepath.Join(dir, e.Name())})
		}
	}
	if out == nil {
		return nil, fmt.Errorf("%s: no .jpg, .jpeg or .png files in it", dir)
	}
	return out, nil
}

// readLabels reads a table with a header: a column file (filename, path, image), relative to the folder of images or to that
// of the table, and a column label (class_index, class, index) of integers.
func readLabels(path, dir string) ([]labelled, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := csv.NewReader(f)
	header, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	column := func(names ...string) (int, error) {
		for _, n := range names {
			if i := slices.IndexFunc(header, func(h string) bool { return strings.EqualFold(strings.TrimSpace(h), n) }); i >= 0 {
				return i, nil
			}
		}
		return 0, fmt.Errorf("%s: columns %q, wanted one of %q", path, header, names)
	}
	file, err := column("file", "filename", "path", "image")
	if err != nil {
		return nil, err
	}
	label, err := column("label", "class_index", "class", "index")
	if err != nil {
		return nil, err
	}
	var out []labelled
	for {
		rec, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		n, err := strconv.ParseInt(strings.TrimSpace(rec[label]), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: row %d: label %q, wanted an integer", path, len(out)+2, rec[label])
		}
		out = append(out, labelled{locate(rec[file], dir, filepath.Dir(path)), n})
	}
	if out == nil {
		return nil, fmt.Errorf("%s: lists no images", path)
	}
	return out, nil
}

// locate finds a listed file in the folder of images, by its listed path or its name, else beside the table.
func locate(name, dir, table string) string {
	for _, p := range []string{filepath.Join(dir, name), filepath.Join(dir, filepath.Base(name)), filepath.Join(table, name)} {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	return filepath.Join(dir, name)
}

func (p *Preprocess) feed(it labelled, m *ir.Model, labels bool) (Feed, error) {
	v := m.Graph.FreeInputs()[0]
	file, err := os.Open(it.file)
	if err != nil {
		return Feed{}, err
	}
	defer file.Close()
	conf, _, err := image.DecodeConfig(file)
	if err != nil {
		return Feed{}, err
	}
	if conf.Width < 1 || conf.Height < 1 || conf.Width > 1<<28/conf.Height {
		return Feed{}, fmt.Errorf("an image of %d×%d pixels is too large", conf.Width, conf.Height)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return Feed{}, err
	}
	img, _, err := image.Decode(file)
	if err != nil {
		return Feed{}, err
	}
	t, err := p.tensor(img)
	if err != nil {
		return Feed{}, err
	}
	f := Feed{Tensors: ir.Tensors{v.Name: t}, Extra: ir.Tensors{}, N: 1}
	if labels {
		f.Extra["labels"] = ir.FromSlice(ir.Int64, []int{1}, []int64{it.label})
	}
	return f, settle(&f, m)
}

// tensor returns an image as a tensor with a leading dimension of 1.
func (p *Preprocess) tensor(img image.Image) (*ir.Tensor, error) {
	pix := planes(img, p.Channels)
	if p.Resize[0] > 0 {
		w, h := p.Resize[0], p.Resize[1]
		if h == 0 {
			side := w
			w, h = side, side
			if pix.w > pix.h {
				w = side * pix.w / pix.h
			} else {
				h = side * pix.h / pix.w
			}
		}
		pix = pix.resized(w, h)
	}
	if p.Crop[0] > 0 {
		var err error
		if pix, err = pix.cropped(p.Crop[0], p.Crop[1]); err != nil {
			return nil, err
		}
	}
	channels := len(pix.data)
	at := func(list []float64, c int, otherwise float64) float64 {
		switch len(list) {
		case 0:
			return otherwise
		case 1:
			return list[0]
		}
		return list[c]
	}
	out := make([]float32, channels*pix.w*pix.h)
	for c, plane := range pix.data {
		mean, std := at(p.Mean, c, 0), at(p.Std, c, 1)
		for i, v := range plane {
			k := c*len(plane) + i
			if p.NHWC {
				k = i*channels + c
			}
			out[k] = float32((float64(v)*p.Scale - mean) / std)
		}
	}
	if p.NHWC {
		return ir.Floats(out, 1, pix.h, pix.w, channels), nil
	}
	return ir.Floats(out, 1, channels, pix.h, pix.w), nil
}

// pixels are planes of 8-bit values, one for each channel.
type pixels struct {
	w, h int
	data [][]uint8
}

// planes splits an image into channels; what is transparent is darkened.
func planes(img image.Image, channels string) pixels {
	b := img.Bounds()
	p := pixels{w: b.Dx(), h: b.Dy()}
	n := p.w * p.h
	rgb := [3][]uint8{make([]uint8, n), make([]uint8, n), make([]uint8, n)}
	jpeg, isJPEG := img.(*image.YCbCr)
	for y := range p.h {
		for x := range p.w {
			i := y*p.w + x
			if isJPEG {
				yi, ci := jpeg.YOffset(b.Min.X+x, b.Min.Y+y), jpeg.COffset(b.Min.X+x, b.Min.Y+y)
				rgb[0][i], rgb[1][i], rgb[2][i] = fromYCbCr(jpeg.Y[yi], jpeg.Cb[ci], jpeg.Cr[ci])
				continue
			}
			r, g, bl, _ := img.At(b.Min.X+x, b.Min.Y+y).RGBA()
			rgb[0][i], rgb[1][i], rgb[2][i] = uint8(r>>8), uint8(g>>8), uint8(bl>>8)
		}
	}
	switch channels {
	case "bgr":
		p.data = [][]uint8{rgb[2], rgb[1], rgb[0]}
	case "gray": // ITU-R BT.601 luma
		gray := make([]uint8, n)
		for i := range gray {
			gray[i] = uint8((19595*uint32(rgb[0][i]) + 38470*uint32(rgb[1][i]) + 7471*uint32(rgb[2][i]) + 1<<15) >> 16)
		}
		p.data = [][]uint8{gray}
	default:
		p.data = rgb[:]
	}
	return p
}

// fromYCbCr converts as JFIF says (ITU-R BT.601, full range), rounded to nearest: image/color truncates, which darkens every
// image by half a level against the decoders that models were trained with.
func fromYCbCr(y, cb, cr uint8) (r, g, b uint8) {
	const half = 1 << 15
	l, u, v := int32(y), int32(cb)-128, int32(cr)-128
	clip := func(x int32) uint8 { return uint8(min(max(x, 0), 255)) }
	return clip(l + (91881*v+half)>>16), clip(l + (-22554*u-46802*v+half)>>16), clip(l + (116130*u+half)>>16)
}

func (p pixels) cropped(w, h int) (pixels, error) {
	if w > p.w || h > p.h {
		return p, fmt.Errorf("an image of %d×%d pixels gives no crop of %d×%d", p.w, p.h, w, h)
	}
	left, top := (p.w-w)/2, (p.h-h)/2
	q := pixels{w: w, h: h}
	for _, plane := range p.data {
		out := make([]uint8, 0, w*h)
		for y := range h {
			row := (top+y)*p.w + left
			out = append(out, plane[row:row+w]...)
		}
		q.data = append(q.data, out)
	}
	return q, nil
}

// resized scales with a triangle filter that covers at least one source pixel and, where the image shrinks, as many as one
// pixel of the result stands for: first the rows, then the columns, each rounded to 8 bits.
func (p pixels) resized(w, h int) pixels {
	if w == p.w && h == p.h {
		return p
	}
	across, down := triangle(p.w, w), triangle(p.h, h)
	q := pixels{w: w, h: h}
	for _, plane := range p.data {
		wide := make([]uint8, w*p.h)
		for y := range p.h {
			for x, t := range across {
				wide[y*w+x] = t.sum(plane, y*p.w, 1)
			}
		}
		out := make([]uint8, w*h)
		for y, t := range down {
			for x := range w {
				out[y*w+x] = t.sum(wide, x, w)
			}
		}
		q.data = append(q.data, out)
	}
	return q
}

// taps are the weights of one pixel of the result, from the source pixel first on.
type taps struct {
	first  int
	weight []float64
}

func (t taps) sum(src []uint8, at, step int) uint8 {
	s := 0.0
	for i, w := range t.weight {
		s += float64(w * float64(src[at+(t.first+i)*step]))
	}
	return uint8(min(max(math.Floor(s+0.5), 0), 255))
}

// triangle returns the taps that bring from pixels to to.
func triangle(from, to int) []taps {
	ratio := float64(from) / float64(to)
	support := max(ratio, 1)
	out := make([]taps, to)
	for i := range out {
		centre := (float64(i) + 0.5) * ratio
		lo := max(int(centre-support+0.5), 0)
		hi := min(int(centre+support+0.5), from)
		t := taps{first: lo}
		total := 0.0
		for k := lo; k < hi; k++ {
			w := max(1-math.Abs((float64(k)+0.5-centre)/support), 0)
			t.weight = append(t.weight, w)
			total += w
		}
		for k := range t.weight {
			t.weight[k] /= total
		}
		out[i] = t
	}
	return out
}
