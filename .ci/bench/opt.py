"""Writes a model with the graph of OPT and random weights: any size, nothing to download.

usage: opt.py OUT.onnx [--layers 12] [--width 768] [--heads 12] [--vocab 50272] [--positions 2048] [--external] [--tokens FILE.npy --samples 64 --length 256]

The defaults are the shape of OPT-125M: decoder layers of LayerNormalization in front, biases everywhere, ReLU, an embedding that
the head reads through a Transpose. With --external the weights go to OUT.onnx.data, a tensor at a time. --tokens writes token
ids for the model beside it. The same arguments make the same bytes.
"""

import argparse
import os

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PAGE = 4096


class Weights:
    """Random tensors, in the model or in a file beside it."""

    def __init__(self, path, external):
        self.rng = np.random.default_rng(0)
        self.noise = self.rng.standard_normal(1 << 22, dtype=np.float32)
        self.list = []
        self.file = open(path + ".data", "wb") if external else None
        self.location = os.path.basename(path) + ".data"

    def normal(self, name, shape, std, mean=0.0):
        """Normal numbers; large tensors repeat a pool of 4 million of them from a random place on, so that gigabytes take seconds."""
        n = int(np.prod(shape))
        start = int(self.rng.integers(self.noise.size))
        pool = np.roll(self.noise, start) * np.float32(std) + np.float32(mean)
        return self.add(name, shape, (pool[: min(pool.size, n - at)] for at in range(0, n, pool.size)))

    def add(self, name, shape, pieces):
        if self.file is None or np.prod(shape) < 1024:
            self.list.append(numpy_helper.from_array(np.concatenate(list(pieces)).reshape(shape), name))
            return name
        t = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
        self.file.write(bytes(-self.file.tell() % PAGE))
        start = self.file.tell()
        for p in pieces:
            self.file.write(p.tobytes())
        for key, value in ("location", self.location), ("offset", start), ("length", self.file.tell() - start):
            t.external_data.add(key=key, value=str(value))
        self.list.append(t)
        return name

    def ints(self, name, *values):
        self.list.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name


def build(w, layers, width, heads, vocab, positions):
    nodes = []

    def node(op, ins, out, **attrs):
        nodes.append(helper.make_node(op, ins, [out], name=out + "_node", **attrs))
        return out

    def norm(x, name):
        gain, bias = w.normal(name + ".weight", [width], 0.1, 1), w.normal(name + ".bias", [width], 0.1)
        return node("LayerNormalization", [x, gain, bias], name, axis=-1)

    def linear(x, name, k, n):
        y = node("MatMul", [x, w.normal(name + ".weight", [k, n], k**-0.5)], name + "_product")
        return node("Add", [y, w.normal(name + ".bias", [n], 0.02)], name)

    zero, one = w.ints("zero", 0), w.ints("one", 1)
    split, merge = w.ints("split", 0, 0, heads, width // heads), w.ints("merge", 0, 0, width)
    for name, value in ("scale", (width // heads) ** -0.5), ("low", -1e9):
        w.list.append(numpy_helper.from_array(np.array(value, np.float32), name))
    embed = w.normal("embed_tokens.weight", [vocab, width], 0.02)
    place = w.normal("embed_positions.weight", [positions, width], 0.02)

    length = node("Gather", [node("Shape", ["input_ids"], "shape"), one], "length", axis=0)
    x = node("Add", [node("Gather", [embed, "input_ids"], "tokens"), node("Slice", [place, zero, length, zero], "places")], "h0")
    square = node("Concat", [length, length], "square", axis=0)
    full = node("Expand", ["low", square], "full")
    mask = node("Trilu", [full, node("Squeeze", [one], "above")], "mask", upper=1)

    for i in range(layers):
        p = f"layers.{i}."
        y = norm(x, p + "self_attn_layer_norm")
        part = {}
        for what in "qkv":
            z = linear(y, f"{p}self_attn.{what}_proj", width, width)
            if what == "q":
                z = node("Mul", [z, "scale"], p + "q_scaled")
            z = node("Reshape", [z, split], f"{p}{what}_split")
            part[what] = node("Transpose", [z], f"{p}{what}_heads", perm=[0, 2, 3, 1] if what == "k" else [0, 2, 1, 3])
        s = node("Add", [node("MatMul", [part["q"], part["k"]], p + "scores"), mask], p + "masked")
        c = node("MatMul", [node("Softmax", [s], p + "probs", axis=-1), part["v"]], p + "context")
        c = node("Reshape", [node("Transpose", [c], p + "joined", perm=[0, 2, 1, 3]), merge], p + "merged")
        x = node("Add", [x, linear(c, p + "self_attn.out_proj", width, width)], p + "attended")
        y = linear(norm(x, p + "final_layer_norm"), p + "fc1", width, 4 * width)
        y = linear(node("Relu", [y], p + "relu"), p + "fc2", 4 * width, width)
        x = node("Add", [x, y], f"h{i + 1}")
    head = node("Transpose", [embed], "lm_head.weight", perm=[1, 0])
    node("MatMul", [norm(x, "final_layer_norm"), head], "logits")
    graph = helper.make_graph(
        nodes,
        "opt",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "sequence", vocab])],
        w.list,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="qsimc .ci/bench/opt.py")


def write(path, layers, width, heads, vocab, positions, external):
    """Writes a model file, with its data beside it if external."""
    w = Weights(path, external)
    m = build(w, layers, width, heads, vocab, positions)
    if w.file:
        w.file.close()
    with open(path, "wb") as f:
        f.write(m.SerializeToString())


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("out")
    for name, value in ("layers", 12), ("width", 768), ("heads", 12), ("vocab", 50272), ("positions", 2048), ("samples", 64), ("length", 256):
        a.add_argument("--" + name, type=int, default=value)
    a.add_argument("--external", action="store_true")
    a.add_argument("--tokens")
    a = a.parse_args()
    write(a.out, a.layers, a.width, a.heads, a.vocab, a.positions, a.external)
    if a.tokens:
        np.save(a.tokens, np.random.default_rng(1).integers(0, a.vocab, (a.samples, a.length), dtype=np.int64))


if __name__ == "__main__":
    main()
