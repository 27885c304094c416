"""ONNX Runtime makes an integer kernel of every convolution that `--qdq-style ort` quantizes.

usage: fused.py QSIMC ZOO

For resnet-mini, mobilenet-mini and conv-nano, where ZOO has them: the preset w8a8 with --qdq-style ort, the graph that ONNX
Runtime optimizes it to, in which a QLinearConv must stand for every Conv of the file, and the same top-1 within 0.02 in both
runtimes. Exits with 1 if that does not hold.
"""
import collections
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort

MODELS = {"resnet-mini": "cifar10_calib128.npz cifar10_test1000.npz", "mobilenet-mini": "cifar10_calib128.npz cifar10_test1000.npz",
          "conv-nano": "shapes_calib64.npz shapes_eval256.npz"}


def operators(path):
    return collections.Counter(n.op_type for n in onnx.load(path).graph.node)


def main():
    qsimc, zoo = sys.argv[1:]
    bad = False
    for name, data in MODELS.items():
        model = os.path.join(zoo, name, "model.onnx")
        calib, test = (os.path.join(zoo, "data", d) for d in data.split())
        if not os.path.exists(model):
            continue
        with tempfile.TemporaryDirectory() as work:
            out, optimized = os.path.join(work, "q.onnx"), os.path.join(work, "o.onnx")
            subprocess.run([qsimc, "rewrite", model, "-o", out, "--preset", "w8a8", "--samples", calib, "--qdq-style", "ort", "-q"], check=True,
                           stdout=subprocess.DEVNULL)
            o = ort.SessionOptions()
            o.log_severity_level = 3
            o.optimized_model_filepath = optimized
            s = ort.InferenceSession(out, o, providers=["CPUExecutionProvider"])
            before, after = operators(out), operators(optimized)
            d = np.load(test)
            n = min(200, len(d["labels"]))
            x = d[s.get_inputs()[0].name][:n]
            theirs = float(np.mean(np.argmax(s.run(None, {s.get_inputs()[0].name: x})[0], -1) == d["labels"][:n]))
            r = subprocess.run([qsimc, "eval", out, "--data", test, "--count", str(n), "--json"], check=True, capture_output=True, text=True)
            ours = json.loads(r.stdout)["value"]
        ok = after["QLinearConv"] == before["Conv"] and after["Conv"] == 0 and abs(ours - theirs) <= 0.02
        bad |= not ok
        print(f"{'ok   ' if ok else 'FAIL '} {name}: {before['Conv']} Conv, {after['QLinearConv']} QLinearConv, {after['QLinearAdd']} QLinearAdd, "
              f"top-1 {ours:.3f} (Go) {theirs:.3f} (ONNX Runtime)")
    sys.exit(bad)


if __name__ == "__main__":
    main()
