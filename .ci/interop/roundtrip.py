#!/usr/bin/env python3
"""Checks that `qsimc rewrite -p ''` changes nothing that matters.

    roundtrip.py QSIMC [--external] PATH...

QSIMC is the program; a PATH is a model or a folder that is searched for *.onnx files. Each model is rewritten by an empty
pipeline, once more with --external-data if --external is given, and then must
  - have the same opset imports, IR version (or a newer one), node names and operators, inputs, outputs, initializers and
    metadata as the original (keys of qsimc and the producer excepted; initializers are no inputs from IR version 4 on where
    the version was raised);
  - pass onnx.checker with full_check if the original does;
  - give, in ONNX Runtime, the same bits as the original, on test_data_set_0 beside the model if there is one, else on random
    inputs. Models that ONNX Runtime refuses, or that are random themselves, are only compared as files.
Exit status 1 if anything differs; a line for each difference, and a summary.

Needs the Python packages of .ci/requirements.txt.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import numpy
import onnx
import onnxruntime

NUMPY = {
    "tensor(float)": numpy.float32, "tensor(double)": numpy.float64, "tensor(float16)": numpy.float16,
    "tensor(int64)": numpy.int64, "tensor(int32)": numpy.int32, "tensor(int16)": numpy.int16, "tensor(int8)": numpy.int8,
    "tensor(uint64)": numpy.uint64, "tensor(uint32)": numpy.uint32, "tensor(uint16)": numpy.uint16,
    "tensor(uint8)": numpy.uint8, "tensor(bool)": numpy.bool_,
}


def sort_key(nodes):
    return sorted(((list(n.output) or [""])[0], n.name, n.op_type) for n in nodes)


def is_sorted(graph):
    made_later = {o for n in graph.node for o in n.output if o}
    for n in graph.node:
        if any(i in made_later for i in n.input):
            return False
        made_later -= set(n.output)
    return True


def differences(a, b):
    """What differs between two ModelProtos beyond what may."""
    canonical = lambda d: "" if d == "ai.onnx" else d
    opsets = lambda m: {canonical(o.domain): o.version for o in m.opset_import}
    if opsets(a) != opsets(b):
        yield f"opsets {opsets(a)} became {opsets(b)}"
    if b.ir_version < a.ir_version:
        yield f"IR version {a.ir_version} became {b.ir_version}"
    ours = lambda m: [(p.key, p.value) for p in m.metadata_props if not p.key.startswith("qsimc.")]
    if ours(a) != ours(b):
        yield "metadata differs"
    if a.doc_string != b.doc_string or a.graph.doc_string != b.graph.doc_string or a.graph.name != b.graph.name:
        yield "documentation or name differs"
    names = lambda l: [x.name for x in l]
    inputs = names(a.graph.input)
    if a.ir_version < 4 <= b.ir_version:
        inputs = [n for n in inputs if n not in names(a.graph.initializer)]
    for what, x, y in [("inputs", inputs, names(b.graph.input)),
                       ("outputs", names(a.graph.output), names(b.graph.output)),
                       ("initializers", names(a.graph.initializer), names(b.graph.initializer)),
                       ("functions", names(a.functions), names(b.functions))]:
        if x != y:
            yield f"{what} differ: {x[:5]}… became {y[:5]}…"
    if is_sorted(a.graph):
        if [(n.name, n.op_type, list(n.output)) for n in a.graph.node] != [(n.name, n.op_type, list(n.output)) for n in b.graph.node]:
            yield "nodes differ"
    elif sort_key(a.graph.node) != sort_key(b.graph.node):
        yield "nodes differ"


def checked(path):
    try:
        onnx.checker.check_model(str(path), full_check=True)
        return None
    except Exception as e:
        return str(e).strip().splitlines()[0]


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def feeds(path, s):
    data = path.parent / "test_data_set_0"
    feed = {}
    rng = numpy.random.default_rng(0)
    for k, i in enumerate(s.get_inputs()):
        file = data / f"input_{k}.pb"
        if file.exists():
            t = onnx.TensorProto()
            t.ParseFromString(file.read_bytes())
            feed[i.name] = onnx.numpy_helper.to_array(t)
            continue
        shape = [d if isinstance(d, int) and d > 0 else 2 for d in i.shape]
        kind = NUMPY[i.type]
        if numpy.issubdtype(kind, numpy.floating):
            feed[i.name] = rng.standard_normal(shape).astype(kind)
        else:
            feed[i.name] = rng.integers(0, 2, shape).astype(kind)
    return feed


def same(x, y):
    if isinstance(x, list):
        return isinstance(y, list) and len(x) == len(y) and all(map(same, x, y))
    if not isinstance(x, numpy.ndarray):
        return x == y
    return x.dtype == y.dtype and x.shape == y.shape and (x.tolist() == y.tolist() if x.dtype == object else x.tobytes() == y.tobytes())


def compare(path, out):
    """Yields what is wrong with out, then the verdict on how far it was compared."""
    yield from differences(onnx.load(path, load_external_data=False), onnx.load(out, load_external_data=False))
    if not checked(path) and (why := checked(out)):
        yield f"onnx.checker: {why}"
    try:
        s = session(path)
        feed = feeds(path, s)
        want = s.run(None, feed)
        if not all(map(same, want, s.run(None, feed))):
            return
    except Exception:
        return
    global ran
    ran += 1
    try:
        got = session(out).run(None, feed)
    except Exception as e:
        yield f"onnxruntime: {str(e).splitlines()[0]}"
        return
    for o, x, y in zip(s.get_outputs(), want, got):
        if not same(x, y):
            yield f"output {o.name!r} is not bit-equal"


ran = 0


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("qsimc")
    p.add_argument("--external", action="store_true")
    p.add_argument("paths", nargs="+", type=pathlib.Path)
    a = p.parse_args()
    onnxruntime.set_default_logger_severity(4)
    files = []
    for path in a.paths:
        files += sorted(path.rglob("*.onnx")) if path.is_dir() else [path]
    failed = refused = 0
    for path in files:
        for external in [False, True] if a.external else [False]:
            with tempfile.TemporaryDirectory() as folder:
                out = pathlib.Path(folder) / "out.onnx"
                command = [a.qsimc, "rewrite", str(path), "-o", str(out), "-p", "", "--no-check", "--keep-quantized", "-q"]
                done = subprocess.run(command + (["--external-data"] if external else []), capture_output=True, text=True)
                if done.returncode != 0:
                    try:
                        session(path)
                    except Exception:
                        refused += 1  # by ONNX Runtime too
                        continue
                    problems = [done.stderr.strip() or "rewrite failed"]
                else:
                    problems = list(compare(path, out))
            for problem in problems:
                print(f"{path}{' (external data)' if external else ''}: {problem}", flush=True)
            failed += bool(problems)
    print(f"{len(files)} models rewritten by an empty pipeline, {ran} runs compared in ONNX Runtime {onnxruntime.__version__}, "
          f"{refused} refused by both, {failed} failed")
    return 1 if failed or not files else 0


if __name__ == "__main__":
    sys.exit(main())
