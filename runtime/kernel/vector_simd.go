//go:build amd64 && !noasm

package kernel

// avx512 and avx2 are the vector levels.
var (
	avx512 = withTiles(&generic, "avx512")
	avx2   = withTiles(&generic, "avx2")
)

func withTiles(base *impl, name string) impl {
	l := *base
	l.name = name
	if name == "avx512" {
		l.tiles, l.tilesD, l.tilesI = []*tile[float32]{tile9x48, tile14x32}, []*tile[float64]{tile14x16d}, []*tile[int32]{tile9x48i}
	} else {
		l.tiles, l.tilesD, l.tilesI = []*tile[float32]{tile4x24}, []*tile[float64]{tile6x8d}, []*tile[int32]{tile4x16i}
	}
	return l
}
