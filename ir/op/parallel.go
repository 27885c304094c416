package op

// parFor calls body on ranges of at most grain that cover [0, n).
func parFor(n, grain int, body func(lo, hi int)) {
	for lo := 0; lo < n; lo += grain {
		body(lo, min(lo+grain, n))
	}
}
