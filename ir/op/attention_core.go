package op

import (
	"fmt"
	"math"

	"github.com/qsimc/qsimc/ir"
	"github.com/qsimc/qsimc/runtime/kernel"
	"github.com/qsimc/qsimc/runtime/kernel/par"
)

// attention is a scaled dot-product attention about to run: y = softmax(cap(q·kᵀ·scale) + bias)·v for each batch and query
// head, which uses key head head·k.heads/q.heads. A row whose bias is -Inf everywhere gives zeros.
type attention[T floatElem] struct {
	q, k, v, y headView[T]
	scale      float64
	softcap    float64 // cap(x) = softcap·tanh(x/softcap); 0: none

	bias                   []T // [biasBatches, biasHeads, query, key], the first two 1 or as the queries have them; nil: none
	biasBatches, biasHeads int
	causal                 bool // beside the bias, query i sees keys up to i + keys - queries

	scores    []T      // not nil: receives [batch, head, query, key] at a stage
	stage     int      // 0: scaled products, 1: capped, 2: with bias, 3: probabilities
	precision ir.DType // type the softmax is taken in, where it is not T
	sinks     []T      // by query head: a score that takes part in the softmax and has no value; nil: none
}

// check fails where the operands do not fit each other.
func (a *attention[T]) check() error {
	q, k, v := a.q, a.k, a.v
	switch {
	case q.batches != k.batches || q.batches != v.batches:
		return fmt.Errorf("batches of Q, K and V are %d, %d and %d", q.batches, k.batches, v.batches)
	case k.heads != v.heads || k.heads < 1 || q.heads%k.heads != 0:
		return fmt.Errorf("%d query heads, %d key heads, %d value heads: want as many key as value heads, a divisor of the query heads", q.heads, k.heads, v.heads)
	case q.size != k.size:
		return fmt.Errorf("heads of Q have %d elements, of K %d", q.size, k.size)
	case k.rows != v.rows:
		return fmt.Errorf("there are %d keys and %d values", k.rows, v.rows)
	}
	return nil
}

// biasOf returns the bias of a batch and head, [queries, keys].
func (a *attention[T]) biasOf(b, h int) []T {
	if a.bias == nil {
		return nil
	}
	n := a.q.rows * a.k.rows
	return a.bias[(b%a.biasBatches*a.biasHeads+h%a.biasHeads)*n:][:n]
}

// blind reports whether no key is visible in a row of the bias.
func blind[T floatElem](row []T) bool {
	for _, v := range row {
		if !math.IsInf(float64(v), -1) {
			return false
		}
	}
	return true
}

func (a *attention[T]) run() {
	if len(a.y.data) == 0 && len(a.scores) == 0 {
		return
	}
	if a.k.rows == 0 {
		clear(a.y.data)
		return
	}
	if a.softcap == 0 && a.scores == nil && a.sinks == nil && a.precision == ir.Undefined && a.q.size > 0 && a.v.size > 0 && a.q.rows > 0 {
		if _, ok := any(a.q.data).([]float32); ok {
			a.fast()
			return
		}
	}
	par.For(a.q.batches*a.q.heads, 1, func(lo, hi int) {
		s := make([]T, min(a.q.rows, attentionRows)*a.k.rows)
		for i := lo; i < hi; i++ {
			for r := 0; r < a.q.rows; r += attentionRows {
				a.block(i/a.q.heads, i%a.q.heads, r, min(r+attentionRows, a.q.rows), s)
			}
		}
	})
}

// fast hands the heads of each batch to the kernel.
func (a *attention[T]) fast() {
	share := a.q.heads / a.k.heads
	for b := range a.q.batches {
		core := kernel.Attention{
			Count: a.q.heads, SQ: a.q.rows, SK: a.k.rows, D: a.q.size, DV: a.v.size, Share: share,
			StrideQ: a.q.head, StrideK: a.k.head, StrideV: a.v.head, StrideO: a.y.head,
			LdQ: a.q.row, LdK: a.k.row, LdV: a.v.row, LdO: a.y.row,
			Scale: float32(a.scale), Causal: a.causal,
		}
		if a.bias != nil {
			n := a.q.rows * a.k.rows
			core.Mask = any(a.bias[b%a.biasBatches*a.biasHeads*n:][:a.biasHeads*n]).([]float32)
			if a.biasHeads > 1 {
				core.StrideMask = n
			}
		}
		core.Run(any(a.y.at(b, 0)).([]float32), any(a.q.at(b, 0)).([]float32), any(a.k.at(b, 0)).([]float32), any(a.v.at(b, 0)).([]float32))
		for h := range a.q.heads {
			bias := a.biasOf(b, h)
			for r := range a.q.rows {
				if bias != nil && blind(bias[r*a.k.rows:(r+1)*a.k.rows]) {
					clear(a.y.at(b, h)[r*a.y.row:][:a.v.size])
				}
			}
		}
	}
}

// attentionRows is how many query rows of a head are computed at once.
const attentionRows = 128

// block computes queries [from, to) of one head step by step; s is scratch for its scores.
func (a *attention[T]) block(b, h, from, to int, s []T) {
	rows, keys := to-from, a.k.rows
	s = s[:rows*keys]
	kv := h / (a.q.heads / a.k.heads)
	multiplyHeads(rows, keys, a.q.size, rowsFrom(a.q.at(b, h), from*a.q.row), a.q.row, a.k.at(b, kv), a.k.row, true, s, keys)
	show := func(stage int) {
		if a.scores != nil && a.stage == stage {
			copy(a.scores[((b*a.q.heads+h)*a.q.rows+from)*keys:], s)
		}
	}
	for i := range s {
		s[i] = T(float64(s[i]) * a.scale)
	}
	show(0)
	if a.softcap != 0 {
		for i := range s {
			s[i] = T(a.softcap * math.Tanh(float64(s[i])/a.softcap))
		}
	}
	show(1)
	bias := a.biasOf(b, h)
	for i := range s {
		if bias != nil {
			s[i] += bias[from*keys+i]
		}
		if a.causal && i%keys > from+i/keys+keys-a.q.rows {
			s[i] = T(math.Inf(-1))
		}
	}
	show(2)
	for r := range rows {
		a.softmax(s[r*keys:(r+1)*keys], h)
	}
	show(3)
	multiplyHeads(rows, a.v.size, keys, s, keys, a.v.at(b, kv), a.v.row, false, rowsFrom(a.y.at(b, h), from*a.y.row), a.y.row)
}

// rowsFrom returns a matrix from the row at the given distance on; heads without elements have none.
func rowsFrom[T floatElem](m []T, at int) []T { return m[min(at, len(m)):] }

// softmax turns a row of scores into probabilities, zeros where every score is -Inf, in the type that the node asks
// for. h is the query head.
func (a *attention[T]) softmax(row []T, h int) {
	a.round(row)
	top := math.Inf(-1)
	if a.sinks != nil {
		top = float64(a.sinks[h])
	}
	for _, v := range row {
		top = math.Max(top, float64(v))
	}
	if math.IsInf(top, -1) {
		clear(row)
		return
	}
	sum := 0.0
	if a.sinks != nil {
		sum = math.Exp(float64(a.sinks[h]) - top)
	}
	for i, v := range row {
		e := math.Exp(float64(v) - top)
		row[i] = T(e)
		sum += e
	}
	for i := range row {
		row[i] = T(float64(row[i]) / sum)
	}
	a.round(row)
}

// round rounds a row to the precision of the softmax.
func (a *attention[T]) round(row []T) {
	if a.precision == ir.Undefined || a.precision == ir.Float64 {
		return
	}
	half, ok := any(row).([]float32)
	if !ok {
		half = make([]float32, len(row))
		for i, v := range row {
			half[i] = float32(v)
		}
	}
	switch a.precision {
	case ir.Float16:
		kernel.RoundF16(half, half)
	case ir.BFloat16:
		kernel.RoundBF16(half, half)
	}
	if !ok {
		for i, v := range half {
			row[i] = T(v)
		}
	}
}

// multiplyHeads is C = A·B, or A·Bᵀ, with leading dimensions; empty matrices are allowed.
func multiplyHeads[T floatElem](m, n, k int, a []T, lda int, b []T, ldb int, transB bool, c []T, ldc int) {
	if m == 0 || n == 0 {
		return
	}
	switch a := any(a).(type) {
	case []float32:
		kernel.MatMul(m, n, k, a, lda, false, any(b).([]float32), ldb, transB, any(c).([]float32), ldc, false)
	case []float64:
		kernel.MatMul64(m, n, k, a, lda, false, any(b).([]float64), ldb, transB, any(c).([]float64), ldc, false)
	}
}
