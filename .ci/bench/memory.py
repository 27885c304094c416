"""Memory of rewrite: a model of the wanted size with external data is written, rewritten and removed.

usage: memory.py QSIMC FOLDER [--gb 6] [--preset w4-block32] [--limit BYTES]
       memory.py QSIMC FOLDER --gb 3 --width 512 --preset gptq-w4a16 --tokens 4x64 --max-memory 300 [--same]

Anonymous memory (RssAnon of /proc/PID/status, every 10 ms) must stay below the limit: by default 1 GB and the largest tensor, with
--max-memory MB that, what the widest layer takes (see layer) and PROGRAM. --tokens NxT gives N samples of T random tokens. --same also
rewrites without --max-memory, which must write the same bytes.
"""

import argparse
import filecmp
import os
import shutil
import sys
import tempfile

import numpy as np

import opt
import rss


PROGRAM = 40e6  # the program itself and what its collector has not yet looked at


def layer(width):
    """Bytes that GPTQ needs for the second product of a block, with k = 4·width inputs and n = width outputs: four k×k matrices in
    float64 while it factors (second moments, those of the drift, the factor, scratch), another half of one for those in float32 whose
    products measure the error; and of k×n values, four in float32 (the weight, rounded both ways, the rounding's error), five in
    float64 (target, the two of its shift, the rows as they are compensated, scratch) and what of them is packed for a product."""
    k, n = 4 * width, width
    return 36 * k * k + 64 * k * n


def rewrite(a, path, out, more):
    u = rss.run([a.qsimc, "rewrite", path, "-o", out, "--preset", a.preset, "--quiet"] + more)
    if u.code != 0:
        sys.exit(f"qsimc rewrite: status {u.code}\n{u.out[-4000:]}")
    return u


def files(out):
    return [p for p in (out, out + ".data") if os.path.exists(p)]


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("qsimc")
    a.add_argument("folder")
    a.add_argument("--gb", type=float, default=6)
    a.add_argument("--width", type=int)
    a.add_argument("--preset", default="w4-block32")
    a.add_argument("--tokens")
    a.add_argument("--max-memory", type=float)
    a.add_argument("--same", action="store_true")
    a.add_argument("--limit", type=float)
    a.add_argument("--more", nargs="*", default=[], help="further arguments of rewrite, without the leading --")
    a = a.parse_args()
    width = a.width or (4096 if a.gb >= 2 else 1024)
    vocab = 16000
    layers = max(1, round((a.gb * 1e9 / 4 - vocab * width) / (12 * width * width)))
    largest = 4 * max(vocab * width, 4 * width * width)
    limit = a.limit or (a.max_memory * 1e6 + layer(width) + PROGRAM if a.max_memory else 1e9 + largest)
    folder = tempfile.mkdtemp(prefix="qsimc-memory-", dir=a.folder)
    try:
        path = os.path.join(folder, "model.onnx")
        opt.write(path, layers, width, width // 64, vocab, 512, external=True)
        size = sum(os.path.getsize(p) for p in files(path))
        more = ["--" + m for m in a.more]
        if a.tokens:
            shape = tuple(int(d) for d in a.tokens.split("x"))
            tokens = os.path.join(folder, "tokens.npy")
            np.save(tokens, np.random.default_rng(1).integers(0, vocab, shape, dtype=np.int64))
            more += ["--samples", tokens]
        out = os.path.join(folder, "out.onnx")
        u = rewrite(a, path, out, more + ([f"--max-memory={a.max_memory}MB"] if a.max_memory else []))
        result = sum(os.path.getsize(p) for p in files(out))
        print(f"{a.preset}: {size / 1e9:.2f} GB to {result / 1e9:.2f} GB in {u}; limit {limit / 1e6:.0f} MB anonymous")
        if a.same:
            free = os.path.join(folder, "free.onnx")
            print(f"{a.preset}: the same without --max-memory in {rewrite(a, path, free, more)}")
            if len(files(out)) != len(files(free)) or not all(filecmp.cmp(p, q, False) for p, q in zip(files(out), files(free))):
                sys.exit("memory: --max-memory changes what is written")
    finally:
        shutil.rmtree(folder)
    if u.anon > limit:
        sys.exit("memory: more than the limit")


if __name__ == "__main__":
    main()
