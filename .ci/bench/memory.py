"""Memory of a weight-only rewrite: a model of the wanted size with external data is written, rewritten and removed.

usage: memory.py QSIMC FOLDER [--gb 6] [--preset w4-block32] [--limit BYTES]

Anonymous memory (RssAnon of /proc/PID/status, every 10 ms) must stay below the limit: by default 1 GB and the largest tensor.
"""

import argparse
import os
import shutil
import sys
import tempfile

import opt
import rss


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("qsimc")
    a.add_argument("folder")
    a.add_argument("--gb", type=float, default=6)
    a.add_argument("--preset", default="w4-block32")
    a.add_argument("--limit", type=float)
    a.add_argument("--more", nargs="*", default=[], help="further arguments of rewrite, without the leading --")
    a = a.parse_args()
    width = 4096 if a.gb >= 2 else 1024
    vocab = 16000
    layers = max(1, round((a.gb * 1e9 / 4 - vocab * width) / (12 * width * width)))
    largest = 4 * max(vocab * width, 4 * width * width)
    limit = a.limit or 1e9 + largest
    folder = tempfile.mkdtemp(prefix="qsimc-memory-", dir=a.folder)
    try:
        path = os.path.join(folder, "model.onnx")
        opt.write(path, layers, width, width // 64, vocab, 512, external=True)
        size = os.path.getsize(path) + os.path.getsize(path + ".data")
        out = os.path.join(folder, "out.onnx")
        u = rss.run([a.qsimc, "rewrite", path, "-o", out, "--preset", a.preset, "--quiet"] + ["--" + m for m in a.more])
        if u.code != 0:
            sys.exit(f"qsimc rewrite: status {u.code}\n{u.out[-4000:]}")
        result = sum(os.path.getsize(p) for p in (out, out + ".data") if os.path.exists(p))
    finally:
        shutil.rmtree(folder)
    print(f"{a.preset}: {size / 1e9:.2f} GB to {result / 1e9:.2f} GB in {u}; limit {limit / 1e6:.0f} MB anonymous")
    if u.anon > limit:
        sys.exit("memory: more than the limit")


if __name__ == "__main__":
    main()
