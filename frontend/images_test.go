package frontend_test

import (
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/qsimc/qsimc/frontend"
)

// writePNG writes an image of w×h pixels whose red is 10·x, green 10·y, blue 100.
func writePNG(t *testing.T, path string, w, h int) {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			img.SetRGBA(x, y, color.RGBA{uint8(10 * x), uint8(10 * y), 100, 255})
		}
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := png.Encode(f, img); err != nil {
		t.Fatal(err)
	}
}

func TestImageData(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writePNG(t, filepath.Join(dir, "a.png"), 4, 2)
	writePNG(t, filepath.Join(dir, "b.png"), 2, 4)
	writePNG(t, filepath.Join(dir, "c.png"), 2, 2)
	labels := filepath.Join(dir, "labels.csv")
	if err := os.WriteFile(labels, []byte("file,name,class_index\nb.png,bee,7\na.png,ay,3\nc.png,cee,5\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	m := parse(t, `<ir_version: 8, opset_import: ["" : 17]>
m (float[2,3,2,2] x) => (float[2,3,2,2] y) { y = Identity (x) }`)
	d, err := frontend.OpenData(dir, m, frontend.DataOptions{
		Preprocess: "crop=2 channels=bgr mean=100,1,2 std=2", Labels: labels, Extra: true})
	if err != nil {
		t.Fatal(err)
	}
	var got [][]float32
	var classes []int64
	var counts []int
	for f, err := range d.Feeds() {
		if err != nil {
			t.Fatal(err)
		}
		x, _ := f.Tensors["x"].Float32s()
		l, _ := f.Extra["labels"].Int64s()
		got = append(got, x)
		classes = append(classes, l[:f.N]...)
		counts = append(counts, f.N)
	}
	// blue 100 → 0; green from row 1 of b and row 0 of a; red from column 0 of b and column 1 of a
	b := []float32{0, 0, 0, 0, 4.5, 4.5, 9.5, 9.5, -1, 4, -1, 4}
	a := []float32{0, 0, 0, 0, -.5, -.5, 4.5, 4.5, 4, 9, 4, 9}
	c := []float32{0, 0, 0, 0, -.5, -.5, 4.5, 4.5, -1, 4, -1, 4}
	if diff := cmp.Diff([][]float32{append(b, a...), append(c, c...)}, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if diff := cmp.Diff([]int64{7, 3, 5}, classes); diff != "" {
		t.Errorf("labels -want +got\n%s", diff)
	}
	if diff := cmp.Diff([]int{2, 1}, counts); diff != "" {
		t.Errorf("samples -want +got\n%s", diff)
	}
}

// The result of resizing was made by Pillow 13 (Image.resize, BILINEAR) from the same pixels.
func TestImageResize(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writePNG(t, filepath.Join(dir, "a.png"), 7, 5)
	for _, tc := range []struct {
		size string
		want []float32
	}{
		{"3x2", resized3x2},
		{"4x8", resized4x8},
	} {
		m := parse(t, `<ir_version: 8, opset_import: ["" : 17]>
m (float[N,H,W,3] x) => (float[N,H,W,3] y) { y = Identity (x) }`)
		d, err := frontend.OpenData(dir, m, frontend.DataOptions{Preprocess: "layout=nhwc resize=" + tc.size})
		if err != nil {
			t.Fatal(err)
		}
		for f, err := range d.Feeds() {
			if err != nil {
				t.Fatal(err)
			}
			got, _ := f.Tensors["x"].Float32s()
			if diff := cmp.Diff(tc.want, got, cmpopts.EquateApprox(0, 1)); diff != "" {
				t.Errorf("%s: -want +got\n%s", tc.size, diff)
			}
		}
	}
}

func TestPreprocessRefusals(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"crop=0":           "wanted N or WxH",
		"size=3":           `"size=3": wanted resize`,
		"layout=nwhc":      "wanted nchw or nhwc",
		"channels=rgba":    "wanted rgb, bgr or gray",
		"mean=1,2":         "2 values of mean or std for 3 channels",
		"std=1,0,1":        "other than 0",
		"scale=1/0":        "wanted a number",
		"mean=a":           "wanted numbers",
		"resize=1x2x3":     "wanted N or WxH",
		"resize=999999999": "wanted N or WxH",
	} {
		if _, err := frontend.ParsePreprocess(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got error %v, want one with %q", text, err, want)
		}
	}
}

var resized3x2 = []float32{9, 10, 100, 30, 10, 100, 51, 10, 100, 9, 30, 100, 30, 30, 100, 51, 30, 100}

var resized4x8 = []float32{5, 0, 100, 21, 0, 100, 39, 0, 100, 55, 0, 100, 5, 4, 100, 21, 4, 100, 39, 4, 100, 55, 4, 100, 5, 11, 100, 21, 11, 100, 39, 11, 100, 55, 11, 100, 5, 17, 100, 21, 17, 100, 39, 17, 100, 55, 17, 100, 5, 23, 100, 21, 23, 100, 39, 23, 100, 55, 23, 100, 5, 29, 100, 21, 29, 100, 39, 29, 100, 55, 29, 100, 5, 36, 100, 21, 36, 100, 39, 36, 100, 55, 36, 100, 5, 40, 100, 21, 40, 100, 39, 40, 100, 55, 40, 100}
