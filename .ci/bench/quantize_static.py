"""Time and memory of static int8 quantization: qsimc rewrite beside onnxruntime.quantization.quantize_static.

usage: quantize_static.py QSIMC FOLDER [--samples 8,64] [--length 256] [--rounds 1] [--only qsimc|ort]

Both quantize the same OPT-125M-shaped model (opt.py, random weights) to QDQ with int8 weights per channel and int8 activations,
ranges from the largest values, on the same samples and cores, one after the other. Wall-clock time, processor time and the
largest anonymous memory (RssAnon, every 10 ms) of each process are printed. qsimc's time includes its check of the written
file and the comparison with the original in its report; a row without them (--no-check) follows.
"""

import argparse
import os
import shutil
import sys
import tempfile

import numpy as np

import opt
import rss


def peer(model, tokens, out):
    """What runs in the process of ONNX Runtime."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.rows = iter(np.load(tokens))

        def get_next(self):
            row = next(self.rows, None)
            return None if row is None else {"input_ids": row[None]}

    quantize_static(model, out, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QInt8, weight_type=QuantType.QInt8)


def main():
    if sys.argv[1] == "--peer":
        return peer(*sys.argv[2:5])
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("qsimc")
    a.add_argument("folder")
    a.add_argument("--samples", default="8,64")
    a.add_argument("--length", type=int, default=256)
    a.add_argument("--rounds", type=int, default=1)
    a.add_argument("--only")
    a = a.parse_args()
    folder = tempfile.mkdtemp(prefix="qsimc-static-", dir=a.folder)
    try:
        model = os.path.join(folder, "model.onnx")
        opt.write(model, 12, 768, 12, 50272, 2048, external=False)
        tokens = os.path.join(folder, "tokens.npy")
        out = os.path.join(folder, "out.onnx")
        ways = {
            "onnxruntime": [sys.executable, os.path.abspath(__file__), "--peer", model, tokens, out],
            "qsimc": [a.qsimc, "rewrite", model, "-o", out, "--preset", "w8a8", "--samples", tokens, "--quiet"],
        }
        ways["qsimc --no-check"] = ways["qsimc"] + ["--no-check"]
        print(f"| samples of {a.length} tokens | tool | seconds | processor seconds | anonymous MB | resident MB |\n|---|---|---|---|---|---|")
        for n in map(int, a.samples.split(",")):
            np.save(tokens, np.random.default_rng(1).integers(0, 50272, (n, a.length), dtype=np.int64))
            for _ in range(a.rounds):
                for name, command in ways.items():
                    if a.only and not name.startswith(a.only):
                        continue
                    u = rss.run(command)
                    if u.code != 0:
                        sys.exit(f"{name}: status {u.code}\n{u.out[-4000:]}")
                    print(f"| {n} | {name} | {u.wall:.1f} | {u.cpu:.1f} | {u.anon / 1e6:.0f} | {u.peak / 1e6:.0f} |", flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
