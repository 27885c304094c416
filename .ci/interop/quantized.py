"""Quantized zoo models in ONNX Runtime against the Go runtime.

usage: quantized.py QSIMC ZOO [--models a,b] [--preset NAME]

QSIMC is the built binary, ZOO a folder with NAME/model.onnx and data/: testdata, or zoo in the folder that shared/unpack.sh prints. For every
model there:
- rewrite with an empty pipeline: the checker accepts the file, ONNX Runtime's outputs are bit-equal to the original's, opset and names are the same;
- rewrite to static int8 (64 samples): the checker accepts it, ONNX Runtime runs it, the metric agrees within 0.5 %, outputs agree
  (SQNR >= 22 dB for language models, >= 30 dB for the others; its optimizations off, as with them on it does not agree
  with itself to that bound on opt-nano-outlier), quantization costs what the issue allows, the file is small;
- int4 weights in blocks of 32 (OPT models): the same perplexity here and there, opt-mini's within 6 % of float;
- node by node, fed with ONNX Runtime's own inputs (its optimizations off): quantizer outputs bit-equal, products within 1e-5 of the largest magnitude.
Exits with 1 if anything does not hold.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort

LANGUAGE = {"opt-mini", "llama-mini", "opt-nano", "opt-nano-outlier", "llama-nano"}
# model: calibration data, evaluation data, samples evaluated
MODELS = {
    "conv-nano": ("shapes_calib64.npz", "shapes_eval256.npz", 256),
    "opt-nano": ("nano_calib_128.npy", "nano_eval_128.npy", 64),
    "opt-nano-outlier": ("nano_calib_128.npy", "nano_eval_128.npy", 64),
    "llama-nano": ("nano_calib_128.npy", "nano_eval_128.npy", 64),
    "mobilenet-mini": ("cifar10_calib128.npz", "cifar10_test1000.npz", 1000),
    "resnet-mini": ("cifar10_calib128.npz", "cifar10_test1000.npz", 1000),
    "bert-mini": ("subjectivity_calib128.npz", "subjectivity_test1000.npz", 1000),
    "vit-mini": ("cifar10_calib128.npz", "cifar10_test1000.npz", 200),
    "unet-mini": ("unet_calib64.npz", "unet_eval64.npz", 64),
    "llama-mini": ("calib_256.npy", "wikitext2_test_256.npy", 16),
    "opt-mini": ("calib_256.npy", "wikitext2_test_256.npy", 16),
}
failures = []


def check(ok, model, what):
    print(("ok    " if ok else "FAIL  ") + f"{model}: {what}", flush=True)
    if not ok:
        failures.append(f"{model}: {what}")


def session(model, optimize=True):
    o = ort.SessionOptions()
    o.log_severity_level = 3
    o.intra_op_num_threads = 2
    if not optimize:
        o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = model if isinstance(model, (str, bytes)) else model.SerializeToString()
    return ort.InferenceSession(data, o, providers=["CPUExecutionProvider"])


def feeds(sess, path, count):
    """Yields (feed, rows, extra) as qsimc's data reader makes them."""
    ins = sess.get_inputs()
    if path.endswith(".npy"):
        ids = np.load(path)[:count]
        for row in ids:
            feed = {}
            for i in ins:
                if i.name == "attention_mask":
                    feed[i.name] = np.ones((1, len(row)), np.int64)
                elif i.name == "position_ids":
                    feed[i.name] = np.arange(len(row), dtype=np.int64)[None]
                else:
                    feed[i.name] = row[None].astype(np.int64)
            yield feed, 1, {"ids": row[None]}
        return
    data = np.load(path)
    n = min(count, len(data[ins[0].name]))
    batch = ins[0].shape[0] if isinstance(ins[0].shape[0], int) else 1
    for lo in range(0, n, batch):
        take = [min(k, n - 1) for k in range(lo, lo + batch)]
        rows = min(batch, n - lo)
        feed = {i.name: data[i.name][take] for i in ins}
        yield feed, rows, {k: data[k][take] for k in data.files if k not in feed}


def metric(model, sess, path, count):
    """The metric qsimc eval computes, from ONNX Runtime's outputs; also the outputs."""
    total = hits = 0.0
    n = 0
    outs = []
    names = [o.name for o in sess.get_outputs()]
    for feed, rows, extra in feeds(sess, path, count):
        out = sess.run(None, feed)
        outs.append(out[0][:rows])
        if "ids" in extra:
            x = out[0].astype(np.float64)[:, :-1]
            x = x - x.max(-1, keepdims=True)
            lse = np.log(np.exp(x).sum(-1))
            pick = np.take_along_axis(x, extra["ids"][:, 1:, None], -1)[..., 0]
            total += (lse - pick).sum()
            n += pick.size
        elif "labels" in extra:
            hits += (out[0].reshape(len(out[0]), -1).argmax(-1)[:rows] == extra["labels"][:rows]).sum()
            n += rows
        else:
            want = extra[names[0]][:rows].astype(np.float64)
            total += ((out[0][:rows] - want) ** 2).sum()
            n += want.size
    value = np.exp(total / n) if path.endswith(".npy") else (hits / n if hits else total / n)
    return float(value), np.concatenate(outs)


def sqnr(want, got):
    want, got = want.astype(np.float64), got.astype(np.float64)
    noise = ((want - got) ** 2).sum()
    return float("inf") if noise == 0 else 10 * np.log10((want**2).sum() / noise)


def qsimc(args):
    return subprocess.run([ARGS.qsimc, *args], check=True, capture_output=True, text=True).stdout


def untouched(name, original, tmp):
    out = os.path.join(tmp, "same.onnx")
    qsimc(["rewrite", original, "-o", out, "-p", ""])
    a, b = onnx.load(original), onnx.load(out)
    onnx.checker.check_model(b, full_check=True)
    same_names = [(n.name, n.op_type, list(n.input), list(n.output)) for n in a.graph.node] == [
        (n.name, n.op_type, list(n.input), list(n.output)) for n in b.graph.node]
    check([(o.domain, o.version) for o in a.opset_import] == [(o.domain, o.version) for o in b.opset_import] and same_names,
          name, "empty pipeline keeps opset, nodes and names")
    sa, sb = session(original), session(out)
    inputs = {}
    for k, i in enumerate(sa.get_inputs()):
        with open(os.path.join(os.path.dirname(original), "test_data_set_0", f"input_{k}.pb"), "rb") as f:
            inputs[i.name] = onnx.numpy_helper.to_array(onnx.TensorProto.FromString(f.read()))
    equal = all(np.array_equal(x, y, equal_nan=True) for x, y in zip(sa.run(None, inputs), sb.run(None, inputs)))
    check(equal, name, "empty pipeline: ONNX Runtime's outputs are bit-equal")


PRODUCTS = {"MatMul", "Gemm", "Conv", "ConvTranspose"}


def node_by_node(name, path, feed, tmp):
    """Runs ONNX Runtime with every value as an output, then qsimc on the same nodes, each fed with those values."""
    m = onnx.load(path)
    inferred = onnx.shape_inference.infer_shapes(m)
    types = {v.name: v.type for v in list(inferred.graph.value_info) + list(inferred.graph.input) + list(inferred.graph.output)}
    consts = {t.name: t for t in m.graph.initializer}
    picked = [n for n in m.graph.node if n.op_type in PRODUCTS | {"QuantizeLinear", "DequantizeLinear"}]
    full = onnx.ModelProto()
    full.CopyFrom(m)
    have = {o.name for o in m.graph.output}
    want = {v for n in picked for v in list(n.input) + list(n.output) if v and v not in consts}
    produced = {o for n in m.graph.node for o in n.output}
    full.graph.output.extend(onnx.ValueInfoProto(name=v) for v in sorted(want & produced - have))
    sess = session(full, optimize=False)
    outs = [o.name for o in sess.get_outputs()]
    values = dict(zip(outs, sess.run(None, feed)))
    values.update(feed)
    parts = onnx.ModelProto()
    parts.CopyFrom(m)
    del parts.graph.node[:], parts.graph.input[:], parts.graph.output[:], parts.graph.value_info[:], parts.graph.initializer[:]
    used, arrays = set(), {}
    for n in picked:
        k = parts.graph.node.add()
        k.CopyFrom(n)
        for i, v in enumerate(k.input):
            if not v:
                continue
            if v in consts:
                if v not in used:
                    used.add(v)
                    parts.graph.initializer.append(consts[v])
                continue
            k.input[i] = "in/" + v
            if "in/" + v not in arrays:
                arrays["in/" + v] = values[v]
                parts.graph.input.append(onnx.helper.make_tensor_value_info(
                    "in/" + v, onnx.helper.np_dtype_to_tensor_dtype(values[v].dtype), values[v].shape))
        for v in n.output:
            parts.graph.output.append(onnx.helper.make_tensor_value_info(
                v, onnx.helper.np_dtype_to_tensor_dtype(values[v].dtype), values[v].shape))
    src, data, dst = (os.path.join(tmp, f) for f in ("parts.onnx", "parts", "parts.npz"))
    onnx.save(parts, src)
    os.makedirs(data, exist_ok=True)
    np.savez(os.path.join(data, "0.npz"), **arrays)
    qsimc(["run", src, "--inputs", data, "-o", dst])
    got = np.load(dst)
    worst, wrong, products = 0.0, [], 0
    for n in picked:
        for v in n.output:
            if n.op_type in PRODUCTS:
                products += 1
                d = np.abs(got[v].astype(np.float64) - values[v]).max(initial=0) / max(np.abs(values[v]).max(initial=0), 1e-30)
                worst = max(worst, d)
            elif not np.array_equal(got[v], values[v]):
                wrong.append(v)
    check(not wrong, name, f"{len(picked) - products} quantizers bit-equal node by node" + (f", not {wrong[:3]}" if wrong else ""))
    check(worst <= 1e-5, name, f"{products} products within {worst:.2e} of the largest magnitude")


def static_int8(name, original, zoo, tmp):
    calib, evaluation, count = MODELS[name]
    data = os.path.join(zoo, "data")
    out = os.path.join(tmp, name + ".onnx")
    qsimc(["rewrite", original, "-o", out, "--preset", ARGS.preset, "--samples", os.path.join(data, calib), "--count", "64"])
    onnx.checker.check_model(out, full_check=True)
    sess = session(out)
    path = os.path.join(data, evaluation)
    theirs, outs = metric(name, sess, path, count)
    float_value, _ = metric(name, session(original), path, count)
    ours = json.loads(qsimc(["eval", out, "--data", path, "--count", str(count), "--json"]))["value"]
    # accuracies: three samples in a thousand more, as ONNX Runtime with and without its optimizations differs by that
    slack = max(0.003, 1.01 / count) if name not in LANGUAGE and name != "unet-mini" else 0
    check(abs(ours - theirs) <= 0.005 * theirs + slack, name,
          f"metric {ours:.5g} here, {theirs:.5g} in ONNX Runtime, float {float_value:.5g}")
    few = os.path.join(tmp, "few.npz")
    qsimc(["run", out, "--inputs", path, "--count", "16", "-o", few])
    first = np.load(few)[sess.get_outputs()[0].name]
    plain = metric(name, session(out, optimize=False), path, len(first))[1]
    db, own = sqnr(plain, first[: len(plain)]), sqnr(plain, outs[: len(plain)])
    check(db >= (22 if name in LANGUAGE else 30), name,
          f"outputs agree to {db:.1f} dB with ONNX Runtime's, optimizations off (itself with them on: {own:.1f} dB)")
    if name == "unet-mini":
        check(ours <= 1.08 * float_value, name, f"mse {ours:.6f} is {ours / float_value:.3f} of float")
    elif name not in LANGUAGE:
        check(ours >= float_value - 0.02, name, f"accuracy {ours:.3f}, float {float_value:.3f}")
    before, after = os.path.getsize(original), os.path.getsize(out)
    if before > 1e6:
        check(after <= 0.30 * before, name, f"{after / before:.3f} of the float file's size")
    feed, _, _ = next(feeds(sess, path, 1 if not isinstance(sess.get_inputs()[0].shape[0], int) else 2))
    node_by_node(name, out, feed, tmp)


def int4_weights(name, original, zoo, tmp):
    """int4 weights in blocks of 32, activations float."""
    path, count = os.path.join(zoo, "data", MODELS[name][1]), MODELS[name][2]
    out = os.path.join(tmp, "w4.onnx")
    qsimc(["rewrite", original, "-o", out, "--preset", "w4-block32"])
    onnx.checker.check_model(out, full_check=True)
    theirs, _ = metric(name, session(out), path, count)
    plain, _ = metric(name, session(out, optimize=False), path, count)
    float_value, _ = metric(name, session(original), path, count)
    ours = json.loads(qsimc(["eval", out, "--data", path, "--count", str(count), "--json"]))["value"]
    # with its optimizations on, ONNX Runtime fuses to MatMulNBits, which quantizes the activations to 8 bits
    check(abs(ours - plain) <= 1e-5 * plain, name,
          f"int4 blocks: perplexity {ours:.6g} here, {plain:.6g} in ONNX Runtime ({theirs:.6g} with its optimizations)")
    if name == "opt-mini":
        check(max(ours, theirs) <= 1.06 * float_value, name, f"int4 blocks: {ours / float_value:.4f} of float {float_value:.5g}")


def main():
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    models = ARGS.models.split(",") if ARGS.models else list(MODELS)
    for name in models:
        original = os.path.join(ARGS.zoo, name, "model.onnx")
        if not os.path.exists(original) and not ARGS.models:
            continue
        with tempfile.TemporaryDirectory() as tmp:
            untouched(name, original, tmp)
            static_int8(name, original, ARGS.zoo, tmp)
            if name in ("opt-mini", "opt-nano"):
                int4_weights(name, original, ARGS.zoo, tmp)
    print(f"{len(failures)} checks failed")
    return 1 if failures else 0


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("qsimc")
    p.add_argument("zoo")
    p.add_argument("--models", default="")
    p.add_argument("--preset", default="w8a8")
    ARGS = p.parse_args()
    sys.exit(main())
