"""Speed of qsimc against ONNX Runtime: the same model files, the same inputs, the same number of threads, interleaved.

usage: peers.py ENGINE MODELS OUT [--rounds N] [--threads 1,2] [--only NAME,...] [--qsimc QSIMC]

ENGINE is the built .ci/bench/engine, MODELS the folder that shared/unpack.sh prints. With QSIMC, the built command, quantized opt-mini
is run too: static int8 as Q/DQ, and simulations exported with --format fakequant (a third of the rounds: ONNX Runtime takes
long over them); both engines run the same file. In each round one engine runs the model for
about 0.08 s (at least once), then, after a pause in which spinning workers go to sleep, the other one; who starts
alternates. What counts is the median over the rounds of the ratio of the two times of one round: load by other
processes hits both. Processor time is compared in the same way. How long it takes until the first result is there, loading and compiling
included, is the median of three starts. After the table comes what is wanted of each group of models (GROUPS), and whether
it holds. 21 rounds take less than ten minutes on two idle cores.
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
import onnxruntime as ort

PAUSE = 0.08
SLICE = 0.08
STARTS = 3

# What is wanted of a group of models: the speed of each relative to ONNX Runtime, the geometric mean of these, and the time
# until the first result in runs. None: nothing.
TRANSFORMER = "float transformers"
CONV = "float convolutional models"
INT8 = "int8 Q/DQ"
ABFP = "simulation, ABFP W4A4"
MX = "simulation, MXFP4 and NVFP4"
GROUPS = {
    TRANSFORMER: (1.0, 1.1, 3),
    CONV: (0.8, 0.9, 3),
    INT8: (1.0, None, None),
    ABFP: (5.0, None, None),
    MX: (None, None, None),
}

TOKENS = "zoo/data/wikitext2_test_256.npy"
IMAGES = "zoo/data/cifar10_test1000.npz"


def tokens(root, batch, length=256):
    return np.load(f"{root}/{TOKENS}")[:batch, :length].astype(np.int64)


def bert(root, batch):
    # The sentences are short; the acceptance asks for 256 tokens, so rows are repeated up to that length.
    z = np.load(f"{root}/zoo/data/subjectivity_test1000.npz")
    ids = z["input_ids"][:batch].astype(np.int64)
    ids = np.tile(ids, (1, 256 // ids.shape[1] + 1))[:, :256]
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def unet(root):
    z = np.load(f"{root}/zoo/data/unet_eval64.npz")
    return {k: z[k][:2] for k in ("sample", "timestep", "label")}


def images(root, batch):
    return {"pixel_values": np.load(f"{root}/{IMAGES}")["pixel_values"][:batch]}


def cases(root):
    noise = np.random.default_rng(1).standard_normal((1, 3, 224, 224), dtype=np.float32)
    yield TRANSFORMER, "opt-mini 1x256", "zoo/opt-mini", {"input_ids": tokens(root, 1)}
    yield TRANSFORMER, "opt-mini 8x256", "zoo/opt-mini", {"input_ids": tokens(root, 8)}
    yield TRANSFORMER, "llama-mini 1x256", "zoo/llama-mini", {"input_ids": tokens(root, 1)}
    yield TRANSFORMER, "llama-mini 8x256", "zoo/llama-mini", {"input_ids": tokens(root, 8)}
    yield TRANSFORMER, "bert-mini 1x256", "zoo/bert-mini", bert(root, 1)
    yield TRANSFORMER, "bert-mini 8x256", "zoo/bert-mini", bert(root, 8)
    yield TRANSFORMER, "vit-mini 2", "zoo/vit-mini", images(root, 2)
    yield CONV, "resnet-mini 1", "zoo/resnet-mini", images(root, 1)
    yield CONV, "mobilenet-mini 1", "zoo/mobilenet-mini", images(root, 1)
    yield CONV, "unet-mini 2", "zoo/unet-mini", unet(root)
    yield CONV, "squeezenet1.1 1", "models/squeezenet1.1-fp32", {"data_0": noise}


def quantized(qsimc, root, folder):
    """Quantized files of opt-mini, made here."""
    model, calib = f"{root}/zoo/opt-mini/model.onnx", f"{root}/zoo/data/calib_256.npy"
    for group, name, how in (
        (INT8, "int8 Q/DQ", ["--preset", "w8a8", "--samples", calib, "--count", "16"]),
        (ABFP, "abfp-w4a4 fakequant", ["--preset", "abfp-w4a4", "--format", "fakequant"]),
        # ONNX Runtime has no kernels for four-bit floats: weights are folded to the floats they take.
        (MX, "mxfp4 fakequant", ["--preset", "mxfp4", "--format", "fakequant", "--opset", "21"]),
        (MX, "nvfp4 fakequant", ["--preset", "nvfp4", "--format", "fakequant", "--opset", "21"]),
    ):
        path = os.path.join(folder, name.replace(" ", "-").replace("/", "") + ".onnx")
        subprocess.run([qsimc, "rewrite", model, "-o", path, "-q", "--no-check", *how], check=True, stdout=subprocess.DEVNULL)
        yield group, f"opt-mini {name} 1x256", path, {"input_ids": tokens(root, 1)}


class Ours:
    def __init__(self, engine, model, inputs, threads, folder):
        np.savez(os.path.join(folder, "inputs.npz"), **inputs)
        env = dict(os.environ, GOMAXPROCS=str(threads))
        self.proc = subprocess.Popen([engine, model, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.compile, self.first = (int(x) / 1e9 for x in self.proc.stdout.readline().split())

    def run(self, n):
        self.proc.stdin.write(f"{n}\n")
        self.proc.stdin.flush()
        wall, cpu, _, _ = (int(x) for x in self.proc.stdout.readline().split())
        return wall / 1e9 / n, cpu / 1e9 / n

    def close(self):
        self.proc.stdin.close()
        self.proc.wait()


class Peer:
    def __init__(self, model, inputs, threads):
        o = ort.SessionOptions()
        o.intra_op_num_threads = threads
        o.inter_op_num_threads = 1
        self.session = ort.InferenceSession(model, o, providers=["CPUExecutionProvider"])
        self.inputs = inputs

    def run(self, n):
        def used():
            u = resource.getrusage(resource.RUSAGE_SELF)
            return u.ru_utime + u.ru_stime

        cpu, start = used(), time.perf_counter()
        for _ in range(n):
            self.session.run(None, self.inputs)
        wall = time.perf_counter() - start
        return wall / n, (used() - cpu) / n


def compare(engine, model, inputs, threads, rounds):
    with tempfile.TemporaryDirectory() as folder:
        starts = []
        for i in range(STARTS):
            ours = Ours(engine, model, inputs, threads, folder)
            starts.append(ours.compile + ours.first)
            if i + 1 < STARTS:
                ours.close()
        peer = Peer(model, inputs, threads)
        times = {ours: [], peer: []}
        loops = {}
        for e in (ours, peer):
            e.run(1)
            loops[e] = max(1, int(SLICE / e.run(1)[0]))
        for i in range(rounds):
            for e in (ours, peer) if i % 2 else (peer, ours):
                time.sleep(PAUSE)
                times[e].append(e.run(loops[e]))
        ours.close()
    a, b = times[ours], times[peer]
    return {
        "ours": statistics.median(w for w, _ in a) * 1e3,
        "peer": statistics.median(w for w, _ in b) * 1e3,
        "ratio": statistics.median(q[0] / p[0] for p, q in zip(a, b)),
        "best": min(w for w, _ in b) / min(w for w, _ in a),
        "cpu": statistics.median(q[1] / p[1] for p, q in zip(a, b)),
        "start": statistics.median(starts) / statistics.median(w for w, _ in a),
    }


def processor():
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor()


def verdicts(group, threads, results):
    """A line for each thing that is wanted of a group, and one for the means."""
    each, mean, start = GROUPS[group]
    where = f"- {group}, {threads} thread{'s' if threads > 1 else ''}: "
    means = {k: statistics.geometric_mean(r[k] for r in results.values()) for k in ("ratio", "best", "cpu")}
    out = [where + f"geometric means {means['ratio']:.2f} (medians), {means['best']:.2f} (best), {means['cpu']:.2f} (processor time)"]

    def wanted(what, holds, found, misses=()):
        out.append(where + f"{what}: {'holds' if holds else 'DOES NOT HOLD'}, {found}" + "".join(f"; {m}" for m in misses))

    def every(what, key, bound, ok):
        misses = [f"{name} {r[key]:.2f}" for name, r in results.items() if not ok(r[key], bound)]
        values = [r[key] for r in results.values()]
        wanted(what, not misses, f"from {min(values):.2f} to {max(values):.2f}", misses)

    if each is not None:
        every(f"median of each >= {each}", "ratio", each, lambda x, b: x >= b)
        if threads > 1:
            every(f"best against best of each >= {each}", "best", each, lambda x, b: x >= b)
    if mean is not None:
        wanted(f"geometric mean of the medians >= {mean}", means["ratio"] >= mean, f"{means['ratio']:.2f}")
    if start is not None:
        every(f"first result in less than {start} runs", "start", start, lambda x, b: x < b)
    return out


def main():
    p = argparse.ArgumentParser()
    p.add_argument("engine")
    p.add_argument("models")
    p.add_argument("out")
    p.add_argument("--rounds", type=int, default=21)
    p.add_argument("--threads", default="1,2")
    p.add_argument("--only", default="")
    p.add_argument("--qsimc", default="")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(a, folder)


def measure(a, folder):
    go = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout.strip()
    lines = [
        f"{processor()}, {os.cpu_count()} cores, {go}, ONNX Runtime {ort.__version__}, {a.rounds} rounds, "
        f"load average {os.getloadavg()[0]:.1f} at the start.",
        "",
        "| model, input | threads | qsimc ms | ONNX Runtime ms | speed: median of ratios | best against best | processor time: median of ratios | load, compile and first run, in runs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    rows = [(group, name, f"{a.models}/{path}/model.onnx", inputs) for group, name, path, inputs in cases(a.models)]
    if a.qsimc:
        rows += quantized(a.qsimc, a.models, folder)
    results, began = {}, time.time()
    for threads in (int(t) for t in a.threads.split(",")):
        for group, name, path, inputs in rows:
            if a.only and not any(name.startswith(o) for o in a.only.split(",")):
                continue
            rounds = max(a.rounds // 3, 1) if group in (ABFP, MX) else a.rounds
            r = compare(a.engine, path, inputs, threads, rounds)
            results.setdefault((group, threads), {})[name] = r
            row = f"| {name} | {threads} | {r['ours']:.2f} | {r['peer']:.2f} | {r['ratio']:.2f} | {r['best']:.2f} | {r['cpu']:.2f} | {r['start']:.1f} |"
            print(row, flush=True)
            lines.append(row)
    after = ["", f"{time.time() - began:.0f} s, load average {os.getloadavg()[0]:.1f} at the end. What is wanted:", ""]
    for (group, threads), of in results.items():
        after += verdicts(group, threads, of)
    print("\n".join(after), flush=True)
    lines += after
    with open(a.out, "w") as f:
        f.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
