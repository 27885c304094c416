package op

import (
	"fmt"

	"github.com/qsimc/qsimc/ir"
)

// window is the geometry of a window sliding over the spatial axes of a tensor [N, C, D1, D2, …]: what convolutions and
// poolings share.
type window struct {
	kernel, stride, dilation []int
	before, after            []int // padding, as the attribute says or fit finds
	auto                     string
	ceil                     bool
}

// windowOf reads the attributes of a node whose input has the given number of spatial axes. kernel is the shape the weight
// has, nil where the attribute kernel_shape must say it.
func windowOf(n *ir.Node, rank int, kernel []int) (*window, error) {
	w := &window{auto: n.Str("auto_pad", "NOTSET"), ceil: n.Int("ceil_mode", 0) != 0}
	var err error
	if w.kernel, err = spatial(n, "kernel_shape", rank, 1, 1); err != nil {
		return nil, err
	}
	if kernel != nil {
		if n.Attr("kernel_shape") == nil {
			w.kernel = kernel
		}
		for i, k := range kernel {
			if k != w.kernel[i] {
				return nil, fmt.Errorf("kernel_shape %v contradicts the weight's %v", w.kernel, kernel)
			}
		}
	} else if n.Attr("kernel_shape") == nil {
		return nil, fmt.Errorf("attribute kernel_shape is required and absent")
	}
	if w.stride, err = spatial(n, "strides", rank, 1, 1); err != nil {
		return nil, err
	}
	if w.dilation, err = spatial(n, "dilations", rank, 1, 1); err != nil {
		return nil, err
	}
	pads, err := spatial(n, "pads", 2*rank, 0, 0)
	if err != nil {
		return nil, err
	}
	w.before, w.after = pads[:rank:rank], pads[rank:]
	switch w.auto {
	case "NOTSET", "":
		w.auto = "NOTSET"
	case "VALID", "SAME_UPPER", "SAME_LOWER":
		w.before, w.after = make([]int, rank), make([]int, rank)
	default:
		return nil, fmt.Errorf("attribute auto_pad is %q, wants NOTSET, VALID, SAME_UPPER or SAME_LOWER", w.auto)
	}
	return w, nil
}

// maxWindow bounds the numbers in window attributes, so that arithmetic on them cannot overflow.
const maxWindow = 1 << 30

// spatial returns a list attribute with one number for each spatial axis, all def if it is absent.
func spatial(n *ir.Node, name string, count, def int, least int64) ([]int, error) {
	out := make([]int, count)
	v := n.Ints(name)
	if v == nil {
		for i := range out {
			out[i] = def
		}
		return out, nil
	}
	if len(v) != count {
		return nil, fmt.Errorf("attribute %s has %d numbers, wants %d", name, len(v), count)
	}
	for i, x := range v {
		if x < least || x > maxWindow {
			return nil, fmt.Errorf("attribute %s is %v, wants numbers from %d to %d", name, v, least, maxWindow)
		}
		out[i] = int(x)
	}
	return out, nil
}

// extent is the length that the dilated window covers along axis i.
func (w *window) extent(i int) int { return (w.kernel[i]-1)*w.dilation[i] + 1 }

// fit returns the sizes of the output for an input of the given spatial sizes, and resolves auto_pad into before and after.
func (w *window) fit(in []int) ([]int, error) {
	out := make([]int, len(in))
	for i, size := range in {
		s, e := w.stride[i], w.extent(i)
		if w.auto == "SAME_UPPER" || w.auto == "SAME_LOWER" {
			out[i] = (size + s - 1) / s
			total := max((out[i]-1)*s+e-size, 0)
			w.before[i] = total / 2
			if w.auto == "SAME_LOWER" {
				w.before[i] = total - total/2
			}
			w.after[i] = total - w.before[i]
			continue
		}
		room := size + w.before[i] + w.after[i] - e
		if room < 0 {
			return nil, fmt.Errorf("spatial axis %d: a window of %d does not fit a size of %d with padding %d and %d", i, e, size, w.before[i], w.after[i])
		}
		out[i] = room/s + 1
		if w.ceil && room%s != 0 && out[i]*s < size+w.before[i] {
			out[i]++ // a window that would start in the padding behind the data is left out
		}
	}
	return out, nil
}

// dims is fit for dimensions of which some may be unknown; those that the window keeps stay the same symbol.
func (w *window) dims(in []ir.Dim) ([]ir.Dim, error) {
	out := make([]ir.Dim, len(in))
	for i, d := range in {
		if d.Known() {
			one := &window{kernel: w.kernel[i : i+1], stride: w.stride[i : i+1], dilation: w.dilation[i : i+1],
				before: w.before[i : i+1], after: w.after[i : i+1], auto: w.auto, ceil: w.ceil}
			n, err := one.fit([]int{int(d.Size)})
			if err != nil {
				return nil, fmt.Errorf("spatial axis %d of %v: %w", i, in, err)
			}
			out[i] = ir.FixedDim(n[0])
			continue
		}
		out[i] = ir.UnknownDim
		same := w.auto == "SAME_UPPER" || w.auto == "SAME_LOWER" || w.before[i]+w.after[i] == w.extent(i)-1
		if w.stride[i] == 1 && same {
			out[i] = d
		}
	}
	return out, nil
}

// taps returns, for output position o along axis i, the first and one past the last kernel index that falls on data of
// the given size, and the input position of kernel index 0, which may lie in the padding.
func (w *window) taps(i, o, size int) (lo, hi, start int) {
	start = o*w.stride[i] - w.before[i]
	d := w.dilation[i]
	if start < 0 {
		lo = min((-start+d-1)/d, w.kernel[i])
	}
	hi = w.kernel[i]
	if last := size - 1 - start; last < 0 {
		hi = lo
	} else if last/d+1 < hi {
		hi = max(last/d+1, lo)
	}
	return lo, hi, start
}

// spatialRank returns the number of spatial axes of an operand [N, C, D1, …]; it fails if there is none.
func spatialRank(t ir.Type, what string) (int, error) {
	if len(t.Dims) < 3 {
		return 0, fmt.Errorf("%s is %v, wants [N, C, D1, …]", what, t)
	}
	return len(t.Dims) - 2, nil
}
