"""Every number format at every granularity: exported files in ONNX Runtime against the Go runtime.

usage: formats.py QSIMC [--only TEXT] [--write docs/formats.md]

For each scheme a model of one-site branches (MatMul, Gemm, Conv, QK^T, PV) is rewritten, once with Quantize/DequantizeLinear
where ONNX has the type and once simulated in float operators. ONNX's checker must accept the file; quantizer results in
ONNX Runtime (its optimizations off) must equal the Go runtime's bit for bit, branch outputs within 1e-5 of their largest
magnitude. Where ONNX Runtime's CPU provider lacks a kernel, onnx.reference takes its place, and the table says so.
Exits with 1 if anything does not hold.
"""
import argparse
import collections
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T
from onnx import helper as h
from onnx.reference import ReferenceEvaluator

FORMATS = (
    "int2 int3 int4 int5 int6 int8 int10 int12 int16 int4/full int8/full int4/asym int8/asym int8/narrow7 uint2 uint3 uint4 uint8 uint16 uint8/narrow7 "
    "uint8/sym e4m3 e5m2 e4m3fnuz e5m2fnuz e2m1 e1m2 e3m0 e2m3 e3m2 e3m4 e4m1 e5m10 nf4 flint4 bitmod4 bitmod3 ternary ternary-median"
).split()
SCALES = "int4/scale=bf16 int8/scale=bf16 e2m1/scale=bf16 e4m3/scale=bf16 int4/scale=pow2 int4/scale=e8m0 e2m1/scale=e8m0 int4/arith=trt".split()
BLOCKS = (
    "mxfp4 mxfp6e2m3 mxfp6e3m2 mxfp8e4m3 mxfp8e5m2 mxint8 mxint8/mx=ceil mxfp4/mx=even mxfp4/mx=ceil nvfp4 nvint4 int4/block=16/scale2=4 "
    "int4/block=16/scale2=6 e2m1/block=16/scale=e4m3 e2m1/block=16/scale=ue5m3 int4/abfp:16 int8/abfp:16 e4m3/abfp:16 e2m1/abfp:16 e1m2/abfp:16 int3/abfp:16 nf4/abfp:16"
).split()
CASTS = "bf16 fp16 qpt-e4m3 qpt-e5m10 e4m3/scale=none e5m2/scale=none e2m1/scale=none e3m0/scale=none int8/scale=none e8m7 e4m3fnuz/scale=none".split()
GRANULARITIES = {
    "weights": {"tensor": "", "channel": "/axis=out", "block": "/block=16"},
    "inputs": {"tensor": "", "tensor, dynamic": "/dynamic", "axis": "/axis=1", "token": "/token", "block": "/block=16",
               "block, static": "/block=16/static"},
}


def model():
    """One-site branches; K = 40 and 20 channels leave ragged blocks of 16."""
    r = np.random.default_rng(5)

    def w(name, *shape):
        v = r.normal(size=shape) * np.exp2(r.integers(-3, 4, size=shape))
        return onnx.numpy_helper.from_array(v.astype(np.float32), name)

    nodes = [
        h.make_node("MatMul", ["x", "wm"], ["ym"], "matmul"),
        h.make_node("Gemm", ["g", "wg"], ["yg"], "gemm", transB=1),
        h.make_node("Conv", ["c", "wc"], ["yc"], "conv", pads=[1, 1, 1, 1]),
        h.make_node("MatMul", ["q", "k"], ["ys"], "scores"),
        h.make_node("Softmax", ["ys"], ["soft"], "softmax", axis=-1),
        # p is t: the last bit of a Softmax depends on the runtime, and quantizers are to get the same values
        h.make_node("Softmax", ["t"], ["probabilities"], "probabilities", axis=-1),
        h.make_node("Where", ["never", "probabilities", "t"], ["p"], "mask"),
        h.make_node("MatMul", ["p", "v"], ["yp"], "context"),
    ]
    shapes = {"x": [2, 5, 40], "g": [5, 40], "c": [2, 20, 4, 3], "q": [1, 5, 40], "k": [1, 40, 7], "t": [1, 5, 23], "v": [1, 23, 6]}
    open_axes = {"x": {1: "rows"}, "t": {2: "keys"}, "v": {1: "keys"}}
    ins = [h.make_tensor_value_info(n, T.FLOAT, [open_axes.get(n, {}).get(i, d) for i, d in enumerate(s)]) for n, s in shapes.items()]
    ranks = {"ym": 3, "yg": 2, "yc": 4, "soft": 3, "yp": 3}
    outs = [h.make_tensor_value_info(n, T.FLOAT, [f"{n}_{i}" for i in range(k)]) for n, k in ranks.items()]
    g = h.make_graph(nodes, "branches", ins, outs, [w("wm", 40, 6), w("wg", 6, 40), w("wc", 6, 20, 3, 3), onnx.numpy_helper.from_array(np.array(False), "never")])
    m = h.make_model(g, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
    feed = {}
    for n, s in shapes.items():
        v = r.normal(size=s) * np.exp2(r.integers(-4, 4, size=s))
        v[r.random(size=s) < 0.1] = 0
        feed[n] = v.astype(np.float32)
    feed["x"][0, 1] = 0
    feed["x"][0, 2, :16] *= 1e-12
    feed["g"][3] *= 1e-20
    return m, feed


def quantizers(m):
    """Names of values that quantizers give: what DequantizeLinear, simulating functions and written-out simulations make."""
    names = []
    for n in m.graph.node:
        if n.op_type == "DequantizeLinear" or n.domain == "qsimc" or n.doc_string.startswith("qsimc.FakeQuant"):
            names.append(n.output[0])
    return names


def exact(a, b):
    """'=' for the same bits (any NaN is NaN), '=0' if only signs of zeros differ, else ''."""
    if a.shape != b.shape:
        return ""
    nan = np.isnan(a) & np.isnan(b)
    if np.all((a.view(np.uint32) == b.view(np.uint32)) | nan):
        return "="
    return "=0" if np.all((a == b) | nan) else ""


class Driver:
    def __init__(self, qsimc, work):
        self.qsimc, self.work = qsimc, work
        m, self.feed = model()
        self.float = os.path.join(work, "float.onnx")
        onnx.save(m, self.float)
        self.samples = os.path.join(work, "samples")
        d = os.path.join(self.samples, "test_data_set_0")
        os.makedirs(d)
        for i, (n, v) in enumerate(self.feed.items()):
            with open(os.path.join(d, f"input_{i}.pb"), "wb") as f:
                f.write(onnx.numpy_helper.from_array(v, n).SerializeToString())

    def go(self, *args):
        return subprocess.run([self.qsimc, *args], capture_output=True, text=True, timeout=120)

    def cell(self, role, scheme, *flags):
        """Rewrites with the scheme and compares; returns a mark and, where it says so, why."""
        recipe, out = os.path.join(self.work, "r.yaml"), os.path.join(self.work, "q.onnx")
        other = "inputs" if role == "weights" else "weights"
        with open(recipe, "w") as f:
            f.write(f"policy: {{default: {{{role}: {scheme}, {other}: none}}}}\npasses: [fakequant, lower]\n")
        r = self.go("rewrite", self.float, "-o", out, "-c", recipe, "--samples", self.samples, "-q", *flags)
        if r.returncode:
            why = r.stderr.strip().split("\n")[-1].split("qsimc: ")[-1]
            return ("", why) if r.returncode == 2 or "scheme" in why else ("FAIL", why)
        m = onnx.load(out)
        try:
            onnx.checker.check_model(m, full_check=True)
        except Exception as e:  # whatever the checker raises is the finding
            return "FAIL", f"checker: {e}"
        names = quantizers(m)
        for n in names:
            m.graph.output.append(h.make_tensor_value_info(n, T.FLOAT, None))
        watched = os.path.join(self.work, "w.onnx")
        onnx.save(m, watched)
        result = os.path.join(self.work, "o.npz")
        if os.path.exists(result):
            os.remove(result)
        r = self.go("run", watched, "--inputs", self.samples, "-o", result, "-q")
        if r.returncode:
            return "FAIL", r.stderr.strip()
        ours = np.load(result)
        mark = ""
        try:
            o = ort.SessionOptions()
            o.log_severity_level = 4
            o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            s = ort.InferenceSession(m.SerializeToString(), o, providers=["CPUExecutionProvider"])
            theirs = dict(zip([x.name for x in s.get_outputs()], s.run(None, self.feed)))
        except Exception as e:  # ONNX Runtime has no common class for a missing kernel
            if "NOT_IMPLEMENTED" not in str(e):
                return "FAIL", f"ONNX Runtime: {e}"
            mark = "r"
            try:
                theirs = dict(zip([x.name for x in m.graph.output], ReferenceEvaluator(m).run(None, self.feed)))
            except Exception as e:  # the reference implementation has gaps of its own
                return "n/k", f"{type(e).__name__}: {e}"
        worst = "="
        for n in names:
            x, y = np.asarray(ours[n], np.float32), np.asarray(theirs[n], np.float32)
            same = exact(x.reshape(y.shape), y)
            if not same:
                bad = np.argwhere(~((x.reshape(y.shape) == y) | (np.isnan(y) & np.isnan(x.reshape(y.shape)))))
                i = tuple(bad[0])
                return "FAIL", f"quantizer {n}: {len(bad)} of {y.size} differ, at {i}: Go {x.reshape(y.shape)[i]!r}, other {y[i]!r}"
            worst = same if same == "=0" else worst
        for n in ("ym", "yg", "yc", "soft", "yp"):
            x, y = ours[n].reshape(theirs[n].shape), theirs[n]
            if not np.all(np.abs(x - y) <= 1e-5 * np.abs(y).max()):
                return "FAIL", f"output {n}: off by {np.abs(x - y).max() / np.abs(y).max():.2g} of the largest magnitude"
        if not names:
            worst = "f"  # folded to float, nothing to compare but the outputs
        return mark + worst, ""


def schemes(role):
    for f in FORMATS + SCALES:
        for g, suffix in GRANULARITIES[role].items():
            yield f, g, f + suffix
    for f in BLOCKS:
        yield f, "block", f
        if role == "inputs":
            yield f, "block, static", f + "/static"
    for f in CASTS:
        yield f, "tensor", f


def main():
    a = argparse.ArgumentParser()
    a.add_argument("qsimc")
    a.add_argument("--only", default="")
    a.add_argument("--write")
    a = a.parse_args()
    with tempfile.TemporaryDirectory() as work:
        d = Driver(os.path.abspath(a.qsimc), work)
        rows = collections.defaultdict(dict)
        reasons, failures = collections.OrderedDict(), []
        for role in GRANULARITIES:
            for f, g, scheme in schemes(role):
                if a.only not in scheme:
                    continue
                marks = []
                forms = {"qdq": []} if role == "weights" else {"qdq": [], "sim": ["--format", "fakequant"]}
                for form, flags in forms.items():
                    mark, why = d.cell(role, scheme, *flags)
                    if mark == "FAIL":
                        failures.append(f"{role} {scheme} ({form}): {why}")
                    elif mark in ("", "n/k"):
                        reasons.setdefault(f, (f"{role} {scheme}", why.split("\n")[0]))
                    marks.append(mark or "–")
                rows[f][f"{role}: {g}"] = " ".join(marks)
                print(f"{role:8} {scheme:28} {' '.join(marks)}", flush=True)
    for f in failures:
        print("FAIL", f)
    if a.write and not a.only:
        write(a.write, rows, reasons)
    sys.exit(1 if failures else 0)


HEAD = """# Formats, granularities and the runtimes that agree on them

Written by `.ci/interop/formats.py`, which rewrites one-site models (MatMul, Gemm, Conv, QKᵀ, PV) with each scheme, checks the files with
`onnx.checker` {onnx}, and compares ONNX Runtime {ort} on the CPU, its optimizations off, with the Go runtime: quantizer results bit for bit, outputs
within 1e-5 of the largest magnitude. Cells of weights show the default form. Those of inputs show two: `--format qdq` (Quantize/DequantizeLinear where
ONNX has type and granularity, else simulation in float operators) and `--format fakequant` (simulation always).

| mark | means |
|---|---|
| `=` | the same bits |
| `=0` | the same values; signs of some zeros differ: int4 has no -0 to carry e1m2's, and the Go kernels write +0 for blocks of zeros |
| `r=` `r=0` | ONNX Runtime's CPU provider has no kernel; compared with `onnx.reference` instead |
| `f` | the weight is stored without DequantizeLinear: folded to the float values it takes, as the report says, or halves behind a Cast; outputs agree |
| `n/k` | neither has a kernel |
| `–` | the scheme is not defined there; the reason is below |

Static blocks of inputs lie along axes of fixed length (those of MatMul, Gemm, Conv and QKᵀ); PV's keys are open in this model and stay float there.

Without a kernel in ONNX Runtime {ort}: QuantizeLinear and DequantizeLinear of FLOAT4E2M1. A file for it is made with `--opset 21` (weights folded) or
`--format fakequant` (inputs).

"""


def write(path, rows, reasons):
    cols = [f"{r}: {g}" for r in GRANULARITIES for g in GRANULARITIES[r]]
    with open(path, "w") as f:
        f.write(HEAD.format(onnx=onnx.__version__, ort=ort.__version__))
        f.write("| format | " + " | ".join(cols) + " |\n|---|" + "---|" * len(cols) + "\n")
        for name, cells in rows.items():
            f.write(f"| `{name}` | " + " | ".join(cells.get(c, "") for c in cols) + " |\n")
        f.write("\n## Where a scheme is not defined\n\n")
        for example, why in reasons.values():
            f.write(f"- `{example}`: {why}\n")


if __name__ == "__main__":
    main()
