"""Wake words of a public package: models that remember what they heard answer through the gateway as alone, to the bit.

The package is installed once, apart from everything else, in ``.runtimes/wake-words``: only its model files are used.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks import runtimes
from benchmarks.harness import Gateway, Verdict, not_here, scratch, wait_for
from edgeway.client import Client

PACKAGE = "pymicro-wakeword==2.5.0"
FOLDER = runtimes.FOLDER / "wake-words"
WARM_UP = 4
"""Runs on zeros: what a worker does before it says that a model is loaded."""


def installed() -> Path:
    """The folder of the model files; installed if it is not there yet."""
    stamp = FOLDER / ".installed"
    if not stamp.exists() or stamp.read_text() != PACKAGE:
        shutil.rmtree(FOLDER, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*command, "--target", str(FOLDER), PACKAGE], capture_output=True, text=True)
        if done.returncode:
            not_here(f"{PACKAGE} can't be installed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        stamp.write_text(PACKAGE)
    return FOLDER / "pymicro_wakeword" / "models"


def sounds(count: int) -> list[np.ndarray]:
    """Features as the models take them, now loud and now soft."""
    random = np.random.default_rng(0)
    loudest = (128 + 100 * np.sin(np.arange(count) / 15)).astype(int) - 100
    return [random.integers(-128, top, (1, 3, 40)).astype(np.int8) for top in loudest]


def alone(path: Path, inputs: list[np.ndarray]) -> list[int]:
    """The answers of the runtime by itself, in order."""
    from ai_edge_litert.interpreter import Interpreter

    lite = Interpreter(model_path=str(path), num_threads=1)
    lite.allocate_tensors()
    taken, given = lite.get_input_details()[0]["index"], lite.get_output_details()[0]["index"]
    answers = []
    for array in inputs:
        lite.set_tensor(taken, array)
        lite.invoke()
        answers.append(int(lite.get_tensor(given)[0, 0]))
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=500, help="of each model")
    options = parser.parse_args()
    try:
        import ai_edge_litert  # noqa: F401
    except ImportError:
        not_here("ai-edge-litert is not installed: pip install 'edgeway[litert]'")
    paths = sorted(installed().glob("*.tflite"))
    verdict = Verdict(f"wake words of {PACKAGE}: {len(paths)} models, {options.inputs} sounds in a row")
    inputs = sounds(options.inputs)
    other = 0
    with scratch() as made:
        for path in paths:
            place = made / "models" / path.stem / "1"
            place.mkdir(parents=True)
            shutil.copyfile(path, place / "model.tflite")
        flags = ["--model-repository", str(made / "models")]
        config = {"workers": [{"name": "litert", "backend": "litert", "instances": 2}]}
        with Gateway(made, config, flags) as gateway, Client(gateway.unix) as client:
            for path in paths:
                wait_for(lambda name=path.stem: client.ready(name), 60, f"the load of {path.stem}")
                meta = client.metadata(path.stem)
                expected = alone(path, inputs)
                results = [client.infer(path.stem, {meta.inputs[0].name: array}) for array in inputs]
                got = [int(result[meta.outputs[0].name][0, 0]) for result in results]
                served = {result.served_by for result in results}
                warm = alone(path, [np.zeros((1, 3, 40), np.int8)] * WARM_UP + inputs)[WARM_UP:]
                other += sum(one != two for one, two in zip(warm, expected, strict=True))
                same = sum(one == two for one, two in zip(got, expected, strict=True))
                verdict.check(
                    same == len(inputs) and served == {"litert"},
                    f"{path.stem}: {same} of {len(inputs)} answers are the same, of {len(set(expected))} values",
                )
    verdict.control(f"had the warm-up's {WARM_UP} runs been remembered, {other} answers would be others")
    verdict.check(other > 0, "so the warm-up is forgotten")
    verdict.end()


if __name__ == "__main__":
    main()
