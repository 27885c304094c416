package search

import (
	"math"
)

// ClosedForm gives the real-valued bits that minimize Σ cᵢ·4^(−bᵢ) while the mean of bᵢ, weighted by the numbers of values nᵢ,
// is mean and every bᵢ lies in [least, most]: BAQ's equal-loss allocation (METHODS §10), where every value's share of the loss
// is the same, b = R + ½·log2(c/n) less its weighted mean. Groups that leave the range are set to its ends and the others share
// what remains. Groups with c = 0 get least.
func ClosedForm(c, n []float64, mean, least, most float64) []float64 {
	b := make([]float64, len(c))
	free := make([]bool, len(c))
	total := 0.0
	for i := range c {
		total += n[i]
		free[i] = c[i] > 0 && n[i] > 0
		b[i] = least
	}
	for {
		budget, size, logs := mean*total, 0.0, 0.0
		for i := range c {
			if free[i] {
				size += n[i]
				logs += n[i] * math.Log2(c[i]/n[i]) / 2
			} else {
				budget -= n[i] * b[i]
			}
		}
		if size == 0 {
			return b
		}
		// Whichever end is missed by more in sum is fixed first, as in water filling: fixing both at once would overshoot.
		over, under := 0.0, 0.0
		for i := range c {
			if free[i] {
				b[i] = (budget-logs)/size + math.Log2(c[i]/n[i])/2
				over += n[i] * max(b[i]-most, 0)
				under += n[i] * max(least-b[i], 0)
			}
		}
		if over == 0 && under == 0 {
			return b
		}
		for i := range c {
			switch {
			case !free[i]:
			case over >= under && b[i] > most:
				b[i], free[i] = most, false
			case over < under && b[i] < least:
				b[i], free[i] = least, false
			}
		}
	}
}

// choiceTable holds the predicted or measured loss of each group of weights at each choice, and what the choice costs.
type choiceTable struct {
	loss [][]float64 // group, choice; choices in ascending order of bits
	bits [][]float64 // in all, that is bits a value times values
	size []float64   // values
}

// cost is the number of bits of an allocation.
func (t *choiceTable) cost(at []int) float64 {
	sum := 0.0
	for g, j := range at {
		sum += t.bits[g][j]
	}
	return sum
}

// total is the sum of losses of an allocation.
func (t *choiceTable) total(at []int) float64 {
	sum := 0.0
	for g, j := range at {
		sum += t.loss[g][j]
	}
	return sum
}

// allocate chooses for each group such that the bits stay within the budget: the closed form rounded down, then step by step
// whatever lowers the loss most for a bit, then exchanges of two groups. It returns nil if even the least does not fit.
func (t *choiceTable) allocate(budget float64) []int {
	at := t.start(budget)
	if t.cost(at) > budget {
		return nil
	}
	for {
		t.fill(at, budget)
		if !t.exchange(at, budget) {
			return at
		}
	}
}

// start is the closed form with every group's bits rounded down to a choice. The sensitivity c of a group is its loss at its
// middle choice times 4^bits.
func (t *choiceTable) start(budget float64) []int {
	c := make([]float64, len(t.loss))
	total, least, most := 0.0, math.Inf(1), 0.0
	per := func(g, j int) float64 { return t.bits[g][j] / t.size[g] }
	for g := range t.loss {
		j := len(t.loss[g]) / 2
		c[g] = t.loss[g][j] * math.Pow(4, per(g, j))
		total += t.size[g]
		least, most = min(least, per(g, 0)), max(most, per(g, len(t.loss[g])-1))
	}
	b := ClosedForm(c, t.size, budget/total, least, most)
	at := make([]int, len(b))
	for g := range at {
		for at[g]+1 < len(t.loss[g]) && per(g, at[g]+1) <= b[g]+1e-9 {
			at[g]++
		}
	}
	for t.cost(at) > budget { // groups whose least choice is above the least of all
		g := t.cheapest(at, nil)
		if g < 0 {
			break
		}
		at[g]--
	}
	return at
}

// cheapest is the group whose loss grows least for a bit saved; -1 if none can be lowered. skip excludes one.
func (t *choiceTable) cheapest(at []int, skip func(g int) bool) int {
	best, rate := -1, math.Inf(1)
	for g, j := range at {
		if j == 0 || skip != nil && skip(g) {
			continue
		}
		if r := (t.loss[g][j-1] - t.loss[g][j]) / (t.bits[g][j] - t.bits[g][j-1]); best < 0 || r < rate {
			best, rate = g, r
		}
	}
	return best
}

// fill raises groups while the budget lasts.
func (t *choiceTable) fill(at []int, budget float64) {
	left := budget - t.cost(at)
	for {
		best, step, rate := -1, 0, 0.0
		for g, j := range at {
			for k := j + 1; k < len(t.loss[g]); k++ {
				more := t.bits[g][k] - t.bits[g][j]
				if r := (t.loss[g][j] - t.loss[g][k]) / more; more <= left && r > rate {
					best, step, rate = g, k, r
				}
			}
		}
		if best < 0 {
			return
		}
		left -= t.bits[best][step] - t.bits[best][at[best]]
		at[best] = step
	}
}

// exchange raises one group at the cost of another where the sum of losses falls; false if there is no such pair.
func (t *choiceTable) exchange(at []int, budget float64) bool {
	left := budget - t.cost(at)
	bestGain, up, upTo, down, downTo := 0.0, -1, 0, -1, 0
	for g, j := range at {
		for k := j + 1; k < len(t.loss[g]); k++ {
			need, gain := t.bits[g][k]-t.bits[g][j], t.loss[g][j]-t.loss[g][k]
			for h, i := range at {
				for l := 0; h != g && l < i; l++ {
					if t.bits[h][i]-t.bits[h][l] < need-left {
						continue
					}
					if net := gain - (t.loss[h][l] - t.loss[h][i]); net > bestGain*(1+1e-9)+1e-15 {
						bestGain, up, upTo, down, downTo = net, g, k, h, l
					}
				}
			}
		}
	}
	if up < 0 {
		return false
	}
	at[up], at[down] = upTo, downTo
	return true
}
