package sweep

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Expressions of claims: numbers, + - * / and parentheses, min(…) and max(…), and of the results
//
//	value(MODEL, RECIPE)    the metric; MODEL is a model's name, its first data set then, or model/data
//	rise(MODEL, RECIPE)     value / value of float − 1
//	drop(MODEL, RECIPE)     1 − value / value of float
//	sqnr(MODEL, RECIPE)     mean over the quantized inputs of products of the error of their rounding, dB
//	gap(MODEL, A, B)        least over these inputs of SQNR under A − SQNR under B, dB
//	bits(MODEL, RECIPE)     bits of a weight's value
//	bytes(MODEL, RECIPE)    size of the file

// expr is a parsed expression: it computes its value from results.
type expr func(*Results) (float64, error)

type exprParser struct{ rest string }

// parseExpr reads an expression.
func parseExpr(text string) (expr, error) {
	p := &exprParser{text}
	e, err := p.sum()
	if err == nil && p.peek() != 0 {
		err = fmt.Errorf("unexpected %q", p.rest)
	}
	if err != nil {
		return nil, fmt.Errorf("expression %q: %w", text, err)
	}
	return e, nil
}

func (p *exprParser) peek() byte {
	p.rest = strings.TrimLeft(p.rest, " ")
	if p.rest == "" {
		return 0
	}
	return p.rest[0]
}

// operators parses a chain of operands with operators of one precedence.
func (p *exprParser) operators(ops string, operand func() (expr, error)) (expr, error) {
	left, err := operand()
	for err == nil {
		op := p.peek()
		if op == 0 || !strings.ContainsRune(ops, rune(op)) {
			return left, nil
		}
		p.rest = p.rest[1:]
		var right expr
		if right, err = operand(); err != nil {
			break
		}
		a := left
		left = func(r *Results) (float64, error) {
			x, err1 := a(r)
			y, err2 := right(r)
			switch op {
			case '+':
				x += y
			case '-':
				x -= y
			case '*':
				x *= y
			default:
				x /= y
			}
			return x, errors.Join(err1, err2)
		}
	}
	return nil, err
}

func (p *exprParser) sum() (expr, error)     { return p.operators("+-", p.product) }
func (p *exprParser) product() (expr, error) { return p.operators("*/", p.operand) }

func (p *exprParser) operand() (expr, error) {
	switch c := p.peek(); {
	case c == '(':
		p.rest = p.rest[1:]
		e, err := p.sum()
		if err != nil {
			return nil, err
		}
		return e, p.want(')')
	case c >= '0' && c <= '9' || c == '.':
		n := strings.IndexFunc(p.rest, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
		if n < 0 {
			n = len(p.rest)
		}
		v, err := strconv.ParseFloat(p.rest[:n], 64)
		if err != nil {
			return nil, fmt.Errorf("%q is no number", p.rest[:n])
		}
		p.rest = p.rest[n:]
		return func(*Results) (float64, error) { return v, nil }, nil
	}
	n := strings.IndexByte(p.rest, '(')
	if n <= 0 {
		return nil, fmt.Errorf("wanted a number, a function or ( at %q", p.rest)
	}
	name := strings.TrimSpace(p.rest[:n])
	p.rest = p.rest[n+1:]
	if name == "min" || name == "max" {
		return p.extreme(name)
	}
	count, ok := map[string]int{"value": 2, "rise": 2, "drop": 2, "sqnr": 2, "bits": 2, "bytes": 2, "gap": 3}[name]
	if !ok {
		return nil, fmt.Errorf("function %q is unknown, wanted value, rise, drop, sqnr, gap, bits, bytes, min or max", name)
	}
	inner, rest, ok := strings.Cut(p.rest, ")")
	args := strings.Split(inner, ",")
	if !ok || len(args) != count {
		return nil, fmt.Errorf("%s(%s: wanted %d names and )", name, inner, count)
	}
	p.rest = rest
	for i := range args {
		args[i] = strings.TrimSpace(args[i])
	}
	return func(r *Results) (float64, error) { return r.function(name, args) }, nil
}

func (p *exprParser) want(c byte) error {
	if p.peek() != c {
		return fmt.Errorf("wanted %c at %q", c, p.rest)
	}
	p.rest = p.rest[1:]
	return nil
}

// extreme parses the operands of min and max.
func (p *exprParser) extreme(name string) (expr, error) {
	var list []expr
	for {
		e, err := p.sum()
		if err != nil {
			return nil, err
		}
		list = append(list, e)
		if p.peek() != ',' {
			break
		}
		p.rest = p.rest[1:]
	}
	return func(r *Results) (float64, error) {
		best := math.Inf(1)
		if name == "max" {
			best = math.Inf(-1)
		}
		for _, e := range list {
			v, err := e(r)
			if err != nil {
				return 0, err
			}
			if name == "max" {
				best = max(best, v)
			} else {
				best = min(best, v)
			}
		}
		return best, nil
	}, p.want(')')
}

// function computes a function of the results.
func (r *Results) function(name string, args []string) (float64, error) {
	row, err := r.row(args[0], args[1])
	if err != nil {
		return 0, err
	}
	switch name {
	case "value":
		return row.Value, nil
	case "bits":
		return row.BitsPerWeight, nil
	case "bytes":
		return float64(row.Bytes), nil
	case "sqnr":
		sum, n := 0.0, 0
		for _, s := range row.sites {
			if s.Role == "input" && s.SQNR != nil {
				sum += *s.SQNR
				n++
			}
		}
		if n == 0 {
			return 0, fmt.Errorf("%s/%s: no input's error was measured", args[0], args[1])
		}
		return sum / float64(n), nil
	case "gap":
		other, err := r.row(args[0], args[2])
		if err != nil {
			return 0, err
		}
		return gap(row.sites, other.sites)
	}
	base, err := r.row(args[0], Float)
	if err != nil {
		return 0, err
	}
	if name == "drop" {
		return 1 - row.Value/base.Value, nil
	}
	return row.Value/base.Value - 1, nil
}

// gap returns the least difference of the two errors over the inputs that both have, each the n-th of its site.
func gap(a, b []Site) (float64, error) {
	number := func(list []Site) map[string]float64 {
		out, count := map[string]float64{}, map[string]int{}
		for _, s := range list {
			if s.Role != "input" {
				continue
			}
			count[s.Name]++
			if s.SQNR != nil {
				out[fmt.Sprintf("%s\x00%d", s.Name, count[s.Name])] = *s.SQNR
			}
		}
		return out
	}
	x, y := number(a), number(b)
	least, n := math.Inf(1), 0
	for _, k := range sortedKeys(x) {
		if v, ok := y[k]; ok {
			least = min(least, x[k]-v)
			n++
		}
	}
	if n == 0 {
		return 0, errors.New("gap: the two recipes quantize no input in common")
	}
	return least, nil
}

// row finds the result of a recipe on model or model/data.
func (r *Results) row(model, recipe string) (*Row, error) {
	name, data, _ := strings.Cut(model, "/")
	i := slices.IndexFunc(r.Rows, func(w Row) bool { return w.Model == name && (data == "" || w.Data == data) && w.Recipe == recipe })
	if i < 0 {
		return nil, fmt.Errorf("there is no cell of %s on %s", recipe, model)
	}
	switch w := &r.Rows[i]; {
	case w.Error != "":
		return nil, fmt.Errorf("%s on %s failed: %s", recipe, model, w.Error)
	case !w.Done:
		return nil, fmt.Errorf("%s on %s has not run", recipe, model)
	default:
		return w, nil
	}
}
