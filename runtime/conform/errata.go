package conform

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
)

//go:embed errata.txt
var errataText string

// errata is errataText: the reason by the hash of a stored result.
var errata = func() map[string]string {
	list := map[string]string{}
	for line := range strings.Lines(errataText) {
		if sum, why, ok := strings.Cut(strings.TrimSpace(line), " "); ok && sum != "#" {
			list[sum] = why
		}
	}
	return list
}()

// erratum returns why a data set's first result is known to be wrong, "" if it is not.
func erratum(set string) string {
	data, err := os.ReadFile(filepath.Join(set, "output_0.pb"))
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return errata[hex.EncodeToString(sum[:])]
}
