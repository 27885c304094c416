"""The metrics of qsimc eval against an independent computation from the same outputs.

usage: metrics.py QSIMC ZOO [--models a,b]

QSIMC is the built binary, ZOO a folder with NAME/model.onnx and data/ as for quantized.py. For every model there, float and rewritten to w8a8:
- qsimc run -o dumps the outputs, numpy computes the metric from them, and qsimc eval must agree: perplexity, mse and sqnr to 1e-6 (relative), the
  accuracies top1 and top5 and the agreement with the float model exactly.
And end to end, ONNX Runtime in place of qsimc run: 1e-5 and exactly for float models, 0.5 % and 3 samples of 1 000 for quantized ones (samples that
ONNX Runtime's own optimizations decide otherwise count as its noise, not as a difference).
Exits with 1 if anything does not hold.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnxruntime as ort

# model: calibration data, evaluation data, samples
MODELS = {
    "conv-nano": ("shapes_calib64.npz", "shapes_eval256.npz", 256),
    "opt-nano": ("nano_calib_128.npy", "nano_eval_128.npy", 32),
    "opt-nano-outlier": ("nano_calib_128.npy", "nano_eval_128.npy", 32),
    "llama-nano": ("nano_calib_128.npy", "nano_eval_128.npy", 32),
    "mobilenet-mini": ("cifar10_calib128.npz", "cifar10_test1000.npz", 100),
    "resnet-mini": ("cifar10_calib128.npz", "cifar10_test1000.npz", 100),
    "bert-mini": ("subjectivity_calib128.npz", "subjectivity_test1000.npz", 200),
    "vit-mini": ("cifar10_calib128.npz", "cifar10_test1000.npz", 100),
    "unet-mini": ("unet_calib64.npz", "unet_eval64.npz", 32),
    "opt-mini": ("calib_256.npy", "wikitext2_test_256.npy", 8),
    "llama-mini": ("calib_256.npy", "wikitext2_test_256.npy", 8),
}
failures = []


def check(ok, what):
    print(("ok    " if ok else "FAIL  ") + what, flush=True)
    if not ok:
        failures.append(what)


def qsimc(*args):
    return subprocess.run([ARGS.qsimc, *args], check=True, capture_output=True, text=True).stdout


def evaluate(model, data, count, metric, against=None):
    more = ["--against", against] if against else []
    return json.loads(qsimc("eval", model, "--data", data, "--count", str(count), "--metric", metric, "--json", *more))["value"]


def rank(scores, labels):
    """The number of classes before the label, those of equal score by index."""
    own = np.take_along_axis(scores, labels[:, None], 1)
    index = np.arange(scores.shape[1])[None]
    return ((scores > own) | ((scores == own) & (index < labels[:, None]))).sum(1)


def flat(out, rows):
    return out[:rows].reshape(rows, -1)


def references(out, data, count, names):
    """Yields metric and value as numpy computes them from the first output."""
    if data.endswith(".npy"):
        ids = np.load(data)[:count]
        x = out.astype(np.float64)
        nll = 0.0
        for row, tokens in zip(x, ids):  # log-sum-exp by another road than the program's: logaddexp
            nll += sum(np.logaddexp.reduce(row[t]) - row[t, tokens[t + 1]] for t in range(len(tokens) - 1))
        yield "ppl", float(np.exp(nll / (ids.shape[0] * (ids.shape[1] - 1))))
        return
    arrays = np.load(data)
    if "labels" in arrays:
        labels = arrays["labels"][:count]
        n = len(labels)
        r = rank(flat(out, n), labels)
        for k in (1, 5):
            yield f"top{k}", float((r < k).sum() / n)
        return
    want = arrays[names[0]][:count].astype(np.float64)
    d = out[: len(want)].astype(np.float64) - want
    yield "mse", float((d**2).mean())
    yield "sqnr", float(10 * np.log10((want**2).sum() / (d**2).sum()))


def close(ours, theirs, metric, relative):
    if metric.startswith("top") or metric == "agree":
        return ours == theirs
    return abs(ours - theirs) <= relative * abs(theirs)


def runtime_outputs(model, data, count, optimize=True):
    o = ort.SessionOptions()
    o.log_severity_level = 3
    o.intra_op_num_threads = 2
    o.add_session_config_entry("session.intra_op.allow_spinning", "0")  # on a machine that does other work spinning costs others
    if not optimize:
        o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    s = ort.InferenceSession(model, o, providers=["CPUExecutionProvider"])
    ins = s.get_inputs()
    outs = []
    if data.endswith(".npy"):
        for row in np.load(data)[:count]:
            feed = {}
            for i in ins:
                feed[i.name] = row[None].astype(np.int64)
                if i.name == "attention_mask":
                    feed[i.name] = np.ones((1, len(row)), np.int64)
                elif i.name == "position_ids":
                    feed[i.name] = np.arange(len(row), dtype=np.int64)[None]
            outs.append(s.run(None, feed)[0])
    else:
        arrays = dict(np.load(data))  # read once: an NpzFile reads an array each time it is asked for it
        n = min(count, len(arrays[ins[0].name]))
        batch = ins[0].shape[0] if isinstance(ins[0].shape[0], int) else 1
        for lo in range(0, n, batch):
            take = [min(k, n - 1) for k in range(lo, lo + batch)]
            outs.append(s.run(None, {i.name: arrays[i.name][take] for i in ins})[0][: n - lo])
    return np.concatenate(outs)


def model(name, path, tmp):
    calib, evaluation, count = MODELS[name]
    data = os.path.join(ARGS.zoo, "data", evaluation)
    quantized = os.path.join(tmp, "q.onnx")
    qsimc("rewrite", path, "-o", quantized, "--preset", "w8a8", "--samples", os.path.join(ARGS.zoo, "data", calib), "--count", "32", "-q")
    first = {}
    for kind, file in (("float", path), ("w8a8", quantized)):
        names = [o.name for o in ort.InferenceSession(file, providers=["CPUExecutionProvider"]).get_outputs()]
        dump = os.path.join(tmp, "out.npz")
        qsimc("run", file, "--inputs", data, "--count", str(count), "-o", dump)
        out = first[kind] = np.load(dump)[names[0]]
        theirs = runtime_outputs(file, data, count)
        n = min(count, len(theirs))
        plain = runtime_outputs(file, data, count, optimize=False) if kind == "w8a8" else theirs
        for (metric, want), (_, other), (_, bare) in zip(*(references(x, data, count, names) for x in (out, theirs, plain))):
            got = evaluate(file, data, count, metric)
            check(close(got, want, metric, 1e-6), f"{name} {kind}: {metric} {got!r} from the same outputs in numpy {want!r}")
            if kind == "float":
                check(close(got, other, metric, 1e-5), f"{name} {kind}: {metric} {got:.8g} end to end, ONNX Runtime {other:.8g}")
            elif metric.startswith("top"):
                bound = max(3 * n / 1000, 1) / n + abs(other - bare) + 1e-12
                check(abs(got - other) <= bound, f"{name} {kind}: {metric} {got:.8g} end to end, ONNX Runtime {other:.8g}, {bare:.8g} without its optimizations")
            elif metric != "sqnr":
                bound = 0.005 * other + abs(other - bare)
                check(abs(got - other) <= bound, f"{name} {kind}: {metric} {got:.8g} end to end, ONNX Runtime {other:.8g}, {bare:.8g} without its optimizations")
    a, b = first["float"], first["w8a8"]
    # positions' logits along the last axis; [B, C, 1, 1] is a row of C
    classes = a.shape[1] if a.ndim > 1 and all(d == 1 for d in a.shape[2:]) else a.shape[-1]
    n = min(count, len(a))
    want = float((a[:n].reshape(-1, classes).argmax(1) == b[:n].reshape(-1, classes).argmax(1)).mean())
    got = evaluate(quantized, data, count, "agree", path)
    check(got == want, f"{name}: agree {got!r} from the same outputs in numpy {want!r}")


def main():
    for name in ARGS.models.split(",") if ARGS.models else MODELS:
        path = os.path.join(ARGS.zoo, name, "model.onnx")
        if not os.path.exists(path) and not ARGS.models:
            continue
        with tempfile.TemporaryDirectory() as tmp:
            model(name, path, tmp)
    print(f"{len(failures)} checks failed")
    return 1 if failures else 0


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("qsimc")
    p.add_argument("zoo")
    p.add_argument("--models", default="")
    ARGS = p.parse_args()
    sys.exit(main())
