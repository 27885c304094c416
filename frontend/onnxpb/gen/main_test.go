package main

import "testing"

// The bindings in the repository are what the generator writes now.
func TestFresh(t *testing.T) {
	if err := run("..", true); err != nil {
		t.Error(err)
	}
}
