# Targets: fmt lint test levels levels-small race fuzz interop claims report-check qemu memory memory-small bench bench-peers bench-static generate check. `check` is what CI runs, and claims where ../shared is.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME   ?= 30s
ROUNDS     ?= 21
COUNT      ?= 16
PYTHON     ?= python3
VENV       ?= .venv

.PHONY: fmt lint test levels levels-small race fuzz interop claims report-check qemu memory memory-small bench bench-peers bench-static generate fresh check

fmt:
	gofmt -l -w $$(git ls-files '*.go')

lint:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "not gofmt-clean:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...

test:
	go test ./...

# The suite with the vector kernels of AVX2, and the short one in plain Go, package by package: that is slow. What golden cases
# hold the result to at each level, passes/passtest says.
levels:
	QSIMC_SIMD=avx2 go test ./...
	QSIMC_SIMD=none go test -short -p 1 -timeout 60m ./...

# The part of it that CI runs: golden cases and the runtime.
levels-small:
	for l in avx2 none; do \
		QSIMC_SIMD=$$l go test -count=1 -run Golden ./passes ./runtime/calib && QSIMC_SIMD=$$l go test -count=1 -short ./runtime || exit 1; \
	done

# The packages where goroutines are.
race:
	go test -race -short -timeout 40m ./runtime/... ./passes/... ./ir/op/...

fuzz:
	sh .ci/fuzz $(FUZZTIME)

# Python packages for the checks against ONNX Runtime; their absence is a failure here.
$(VENV)/.ready: .ci/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -r .ci/requirements.txt
	touch $@

interop: $(VENV)/.ready
	sh .ci/interop/run $(VENV)/bin/python

# The HTML report in a real browser; its absence is a failure here.
report-check:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || { echo "report-check: chromium is wanted"; exit 1; }
	go test -count=1 -run Browser ./cmd/qsimc/report

# The vector loops and one rewrite on emulated processors: arm64 and Haswell.
qemu:
	sh .ci/qemu

# What the paper says of its formats, measured on opt-mini over COUNT sequences; 64 are those of docs/paper.md.
claims:
	@test -f ../shared/unpack.sh || { echo "claims: ../shared, where opt-mini is, is wanted"; exit 1; }
	go run ./.ci/claims -count $(COUNT) -calib $(COUNT) "$$(sh ../shared/unpack.sh)"

bench:
	go test -run '^$$' -bench . -benchmem ./runtime/kernel/... ./runtime/ ./frontend/

# Speed beside ONNX Runtime's: minutes, and of use only on a machine that does little else. The table goes to docs/benchmarks.md by hand.
bench-peers: $(VENV)/.ready
	go build -o $(VENV)/engine ./.ci/bench/engine
	go build -o $(VENV)/qsimc ./cmd/qsimc
	$(VENV)/bin/python .ci/bench/peers.py $(VENV)/engine "$$(sh ../shared/unpack.sh)" $(VENV)/peers.md --rounds $(ROUNDS) --qsimc $(VENV)/qsimc

# Anonymous memory of a weight-only rewrite of a model of 6 GB, which must stay below 1 GB and the largest tensor, and of GPTQ of a
# model of 2.5 GB with --max-memory, which must stay below that, what one layer takes and 40 MB; memory-small is the same at a tenth of the
# size or less, with bounds that go with it, and --max-memory must not change what is written.
memory: $(VENV)/.ready
	go build -o $(VENV)/qsimc ./cmd/qsimc
	$(VENV)/bin/python .ci/bench/memory.py $(VENV)/qsimc $(VENV) --gb 6
	$(VENV)/bin/python .ci/bench/memory.py $(VENV)/qsimc $(VENV) --gb 2.5 --width 512 --preset gptq-w4a16 --tokens 4x64 --max-memory 300

memory-small: $(VENV)/.ready
	go build -o $(VENV)/qsimc ./cmd/qsimc
	$(VENV)/bin/python .ci/bench/memory.py $(VENV)/qsimc $(VENV) --gb 0.6 --limit 450e6
	$(VENV)/bin/python .ci/bench/memory.py $(VENV)/qsimc $(VENV) --gb 0.15 --width 512 --preset gptq-w4a16 --tokens 4x64 --max-memory 60 --same

# Static quantization of a model of OPT-125M's shape beside ONNX Runtime's tool: time and memory.
bench-static: $(VENV)/.ready
	go build -o $(VENV)/qsimc ./cmd/qsimc
	$(VENV)/bin/python .ci/bench/quantize_static.py $(VENV)/qsimc $(VENV)

generate:
	go generate ./...

# Generated files are what their generators write.
fresh: generate
	@git diff --exit-code --stat || { echo "generated files are stale: commit what 'make generate' changed"; exit 1; }

check: test lint race interop report-check memory-small qemu fuzz fresh
