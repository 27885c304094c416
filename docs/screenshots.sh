#!/usr/bin/env bash
# Makes docs/images/*.png: the HTML report of opt-mini, quantized to 4-bit weights and 8-bit activations, as Chromium shows it.
# usage: docs/screenshots.sh ZOO     (ZOO holds opt-mini/model.onnx and data/calib_256.npy)
set -euo pipefail
zoo=$(realpath "${1:?usage: docs/screenshots.sh ZOO}")
cd "$(dirname "$0")/.."
chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome) || { echo "screenshots: chromium is wanted" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat > "$work/recipe.yaml" <<'YAML'
policy:
  default: {weights: int4/block=32, inputs: int8}
  calibrate: mse-exact
passes: [fold, fakequant, lower]
YAML
go run ./cmd/qsimc rewrite "$zoo/opt-mini/model.onnx" -c "$work/recipe.yaml" --samples "$zoo/data/calib_256.npy" --count 8 \
	-o "$work/q.onnx" --report "$work/report.html" -q > /dev/null

shot() { # NAME WIDTH HEIGHT THEME
	# The theme is set in the page: headless browsers differ in how they are told.
	sed "s/<html lang=\"en\">/<html lang=\"en\" data-theme=\"$4\">/" "$work/report.html" > "$work/$1.html"
	timeout 120 "$chromium" --headless --no-sandbox --disable-gpu --disable-background-networking --disable-dev-shm-usage --hide-scrollbars \
		--user-data-dir="$work/profile-$1" --window-size="$2,$3" --screenshot="$PWD/docs/images/$1.png" "file://$work/$1.html" 2> "$work/$1.log" ||
		{ cat "$work/$1.log" >&2; exit 1; }
}
mkdir -p docs/images
shot report-light 1280 2600 light
shot report-dark 1280 2600 dark
shot report-narrow 400 2600 light
