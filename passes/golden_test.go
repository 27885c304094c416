package passes_test

import (
	"testing"

	"github.com/qsimc/qsimc/passes/passtest"
)

func TestGolden(t *testing.T) {
	t.Parallel()
	passtest.Run(t, "testdata")
}
