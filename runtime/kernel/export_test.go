package kernel

import "testing"

// EachLevel runs f once for each level this machine has, best first. Tests that use it must not be parallel.
func EachLevel(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	old := cur
	defer func() { cur = old }()
	for _, l := range levels() {
		cur = l
		t.Run(l.name, f)
	}
}

// SetLevel makes the named level current and returns a function that puts the former back; false: no such level here.
func SetLevel(name string) (restore func(), ok bool) {
	old := cur
	for _, l := range levels() {
		if l.name == name {
			cur = l
			return func() { cur = old }, true
		}
	}
	return func() {}, false
}

// TileCount is the number of tile shapes of the level in use.
func TileCount() int { return len(cur.tiles) }

// WithTile leaves only tile shape i to the level in use until the function returned is called.
func WithTile(i int) (restore func()) {
	old := cur
	c := *cur
	c.tiles = cur.tiles[i : i+1]
	cur = &c
	return func() { cur = old }
}

// SoftmaxRows is softmaxRows.
var SoftmaxRows = softmaxRows

// PlainRows runs f without the functions on whole rows.
func PlainRows(f func()) {
	old := cur
	defer func() { cur = old }()
	c := *cur
	c.softmaxRows, c.normRows = nil, nil
	cur = &c
	f()
}

// BlockTiles is the number of tiles of products of blocks of the level in use.
func BlockTiles() int { return len(cur.blockTiles) }

// WithBlockTile leaves only tile i of products of blocks to the level in use until the function returned is called; a tile that is not
// made for blocks of size is not left: ok is false.
func WithBlockTile(i, size int) (restore func(), ok bool) {
	old := cur
	if !cur.blockTiles[i].takes(size) {
		return func() {}, false
	}
	c := *cur
	c.blockTiles = cur.blockTiles[i : i+1]
	cur = &c
	return func() { cur = old }, true
}

// Stocked is the number of bytes that stocks hold.
func Stocked() int64 { return stocked.Load() }
