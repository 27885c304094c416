"""Time of rounding one weight by GPTQ, qsimc against PyTorch: the same weights and inputs, threads and grid, interleaved.

usage: gptq_torch.py ENGINE OUT [--rounds N] [--threads 1,2] [--only NAME,...] [--step STEP]

ENGINE is the built .ci/bench/gptq. Weights are random: times do not depend on values. Both sides sum the matrix of second moments over
all sequences, factor it and round; ours is the whole pass with all that it does beside. The PyTorch side is the algorithm as
published (Frantar et al. 2022, with the step sizes that their text gives): a running mean of 2·x·xᵀ over sequences, one percent of the mean diagonal
added, a Cholesky factor of the inverse, columns in blocks of 128 whose errors reach the rest at the end of a block.

Wants torch beside numpy. Times are wall clock and processor time; the ratio is the median over rounds of theirs over ours.
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import tempfile
import time

import numpy as np
import torch

# name, outputs, inputs, how often in the model
OPT_MINI = [("opt-mini q, k, v, out", 384, 384, 24), ("opt-mini fc1", 1536, 384, 6), ("opt-mini fc2", 384, 1536, 6), ("opt-mini lm_head", 8192, 384, 1)]
OPT_125M = [("OPT-125M q, k, v, out", 768, 768, 48), ("OPT-125M fc1", 3072, 768, 12), ("OPT-125M fc2", 768, 3072, 12)]
CASES = [(*c, 64, 256) for c in OPT_MINI] + [(*c, 128, 512) for c in OPT_125M]

BLOCK = 128
DAMP = 0.01
TOP = 7  # int4 without -8


class Torch:
    """One linear layer: moments(x) for each sequence, then round()."""

    def __init__(self, weight):
        self.weight = weight
        k = weight.shape[1]
        self.h = torch.zeros((k, k))
        self.seen = 0

    def moments(self, x):  # one sequence, rows × inputs
        self.h *= self.seen / (self.seen + 1)
        self.seen += 1
        x = x.t() * (2 / self.seen) ** 0.5
        self.h += x @ x.t()

    def round(self):
        w, h = self.weight.clone(), self.h
        step = w.abs().amax(dim=1) / TOP
        step[step == 0] = 1
        diagonal = torch.diagonal(h)
        unused = diagonal == 0
        diagonal[unused] = 1
        w[:, unused] = 0
        diagonal += DAMP * diagonal.mean()
        upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
        out = torch.empty_like(w)
        k = w.shape[1]
        for a in range(0, k, BLOCK):
            b = min(a + BLOCK, k)
            part, u = w[:, a:b].clone(), upper[a:b, a:b]
            errors = torch.empty_like(part)
            for i in range(b - a):
                column = part[:, i]
                rounded = step * torch.clamp(torch.round(column / step), -TOP, TOP)
                out[:, a + i] = rounded
                error = (column - rounded) / u[i, i]
                part[:, i:] -= torch.outer(error, u[i, i:])
                errors[:, i] = error
            w[:, b:] -= errors @ upper[a:b, b:]
        return out


def used():
    u = resource.getrusage(resource.RUSAGE_SELF)
    return u.ru_utime + u.ru_stime


def theirs(weight, x):
    cpu, start = used(), time.perf_counter()
    layer = Torch(weight)
    for s in x:
        layer.moments(s)
    out = layer.round()
    return time.perf_counter() - start, used() - cpu, out


class Ours:
    def __init__(self, engine, threads, step):
        env = dict(os.environ, GOMAXPROCS=str(threads))
        self.proc = subprocess.Popen([engine, "-step", step], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def run(self, job):
        self.proc.stdin.write(job + "\n")
        self.proc.stdin.flush()
        wall, cpu = self.proc.stdout.readline().split()
        return int(wall) / 1e9, int(cpu) / 1e9

    def close(self):
        self.proc.stdin.close()
        self.proc.wait()


def data(folder, n, k, samples, length):
    """A weight and inputs whose channels are correlated, as those of models are."""
    g = np.random.default_rng(n * k + samples)
    w = (g.standard_normal((n, k), dtype=np.float32) * 0.05).astype(np.float32)
    mix = (g.standard_normal((k, k), dtype=np.float32) * (np.exp(-np.arange(k) / (k / 6)) / np.sqrt(k)).astype(np.float32)[:, None])
    x = np.empty((samples, length, k), np.float32)
    for i in range(samples):
        z = g.standard_normal((length, k), dtype=np.float32)
        x[i] = z @ mix + 0.02 * z
    paths = os.path.join(folder, "w.bin"), os.path.join(folder, "x.bin"), os.path.join(folder, "q.bin")
    w.tofile(paths[0])
    x.tofile(paths[1])
    return w, x, paths


def error(w, q, x):
    """Squared error of the product over some of the sequences."""
    return sum(float(((s @ (w - q).T) ** 2).sum(dtype=np.float64)) for s in x[:16])


def compare(engine, case, threads, rounds, step):
    _, n, k, _, samples, length = case
    with tempfile.TemporaryDirectory() as folder:
        w, x, paths = data(folder, n, k, samples, length)
        torch.set_num_threads(threads)
        tw, tx = torch.from_numpy(w), torch.from_numpy(x)
        ours = Ours(engine, threads, step)
        job = f"{n} {k} {samples} {length} {paths[0]} {paths[1]} "
        ours.run(job + paths[2])
        q = np.fromfile(paths[2], np.float32).reshape(n, k)
        _, _, p = theirs(tw, tx)
        quality = error(w, q, x) / error(w, p.numpy(), x)
        a, b = [], []
        for i in range(rounds):
            for who in "ab" if i % 2 else "ba":
                if who == "a":
                    a.append(ours.run(job + "-"))
                else:
                    b.append(theirs(tw, tx)[:2])
        ours.close()
    return {
        "ours": statistics.median(t for t, _ in a),
        "peer": statistics.median(t for t, _ in b),
        "ratio": statistics.median(q[0] / p[0] for p, q in zip(a, b)),
        "best": min(t for t, _ in b) / min(t for t, _ in a),
        "cpu": statistics.median(q[1] / p[1] for p, q in zip(a, b)),
        "quality": quality,
    }


def processor():
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("engine")
    p.add_argument("out")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", default="1,2")
    p.add_argument("--only", default="")
    p.add_argument("--step", default="gptq drift=0")
    a = p.parse_args()
    go = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout.strip()
    lines = [
        f"{processor()}, {os.cpu_count()} cores, {go}, torch {torch.__version__}, {a.rounds} rounds, load average {os.getloadavg()[0]:.1f} at the start; `{a.step}`.",
        "",
        "| weight (outputs x inputs), tokens | threads | qsimc s | PyTorch s | speed: median of ratios | best against best | processor time: median of ratios | squared error, ours over theirs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for threads in (int(t) for t in a.threads.split(",")):
        for case in CASES:
            name, n, k, _, samples, length = case
            if a.only and not any(name.startswith(o) for o in a.only.split(",")):
                continue
            r = compare(a.engine, case, threads, a.rounds, a.step)
            row = (f"| {name} ({n}x{k}), {samples}x{length} | {threads} | {r['ours']:.3f} | {r['peer']:.3f} | {r['ratio']:.2f} | "
                   f"{r['best']:.2f} | {r['cpu']:.2f} | {r['quality']:.3f} |")
            print(row, flush=True)
            lines.append(row)
    with open(a.out, "w") as f:
        f.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
