"""The ONNX project's backend node tests, through the repository and stock tritonclient.

Control: the same cases by onnxruntime in this process. Of those that pass there, 98 % must pass through the gateway;
left out are only cases whose types the protocol cannot carry.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
import tritonclient.grpc as triton
from onnx import TensorProto, numpy_helper

from benchmarks.harness import Gateway, Verdict, put, scratch, wait_for

SHARE = 0.98
DATATYPES = {
    TensorProto.BOOL: "BOOL",
    TensorProto.UINT8: "UINT8",
    TensorProto.UINT16: "UINT16",
    TensorProto.UINT32: "UINT32",
    TensorProto.UINT64: "UINT64",
    TensorProto.INT8: "INT8",
    TensorProto.INT16: "INT16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.FLOAT16: "FP16",
    TensorProto.FLOAT: "FP32",
    TensorProto.DOUBLE: "FP64",
    TensorProto.STRING: "BYTES",
    TensorProto.BFLOAT16: "BF16",
}
BATCH = 150
"""Models in the repository at a time."""


@dataclass
class Case:
    """A model with one set of reference inputs and outputs."""

    name: str
    model: onnx.ModelProto
    inputs: list[np.ndarray]
    outputs: list[np.ndarray]
    rtol: float
    atol: float


def cases() -> Iterator[Case | str]:
    """All node cases with data; the name alone of one whose types the protocol cannot carry."""
    warnings.simplefilter("ignore")
    from onnx.backend.test.loader import load_model_tests

    for test in load_model_tests(kind="node"):
        model, sets = test.model, test.data_sets
        if model is None or not sets:
            continue
        values = (*model.graph.input, *model.graph.output)
        inputs, outputs = sets[0]
        arrays = [_plain(array) for array in (*inputs, *outputs)]
        carried = all(v.type.tensor_type.elem_type in DATATYPES for v in values)
        if not carried or any(array is None for array in arrays):
            yield test.name
            continue
        plain = [array for array in arrays if array is not None]
        yield Case(test.name, model, plain[: len(inputs)], plain[len(inputs) :], test.rtol, test.atol)


def _plain(given: object) -> np.ndarray | None:
    """The array; None for sequences, optionals and what else is no tensor."""
    if isinstance(given, onnx.TensorProto):
        return numpy_helper.to_array(given)
    if isinstance(given, np.ndarray | np.generic | float | int | bool | str):
        return np.asarray(given)
    return None


def same(case: Case, outputs: Sequence[np.ndarray | None]) -> str:
    """Empty: equal within the case's tolerance; else what differs."""
    for expected, got in zip(case.outputs, outputs, strict=True):
        if got is None or got.shape != expected.shape:
            return f"shape {None if got is None else got.shape} instead of {expected.shape}"
        if expected.dtype.kind in "OSU":
            left, right = ([_text(e) for e in a.reshape(-1).tolist()] for a in (expected, got))
            if left != right:
                return "other texts"
        elif not np.allclose(
            np.asarray(got, np.float64 if expected.dtype.kind == "V" else None).astype(np.float64),
            expected.astype(np.float64),
            rtol=case.rtol,
            atol=case.atol,
            equal_nan=True,
        ):
            return "other values"
    return ""


def _text(element: object) -> str:
    return element.decode() if isinstance(element, bytes) else str(element)


def in_process(case: Case) -> bool:
    """Whether onnxruntime alone passes it."""
    try:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        session = ort.InferenceSession(
            case.model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        feed = {i.name: _for_ort(a) for i, a in zip(session.get_inputs(), case.inputs, strict=True)}
        if any(a.dtype.name == "bfloat16" for a in (*case.inputs, *case.outputs)):
            return _bfloat_in_process(session, case)
        return not same(case, session.run(None, feed))
    except Exception:  # noqa: BLE001 - onnxruntime's errors have no common base
        return False


def _for_ort(array: np.ndarray) -> np.ndarray:
    return array.astype(object) if array.dtype.kind in "OSU" else array


def _bfloat_in_process(session: ort.InferenceSession, case: Case) -> bool:
    values = {}
    for spec, array in zip(session.get_inputs(), case.inputs, strict=True):
        if array.dtype.name == "bfloat16":
            values[spec.name] = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(
                array.view(np.uint16), TensorProto.BFLOAT16
            )
        else:
            values[spec.name] = ort.OrtValue.ortvalue_from_numpy(array)
    results = session.run_with_ort_values([o.name for o in session.get_outputs()], values)
    outputs = []
    for expected, result in zip(case.outputs, results, strict=True):
        outputs.append(_as_numpy(result, expected))
    return not same(case, outputs)


def _as_numpy(result: ort.OrtValue, expected: np.ndarray) -> np.ndarray:
    import ctypes

    if expected.dtype.name != "bfloat16":
        return result.numpy()
    shape = tuple(result.shape())
    raw = ctypes.string_at(result.data_ptr(), int(np.prod(shape)) * 2)
    return np.frombuffer(raw, np.uint16).reshape(shape).view(expected.dtype)


def through(client: triton.InferenceServerClient, case: Case) -> str:
    """Empty: it passes through the gateway; else why not."""
    graph = case.model.graph
    tensors = []
    for spec, array in zip(graph.input, case.inputs, strict=True):
        tensor = triton.InferInput(spec.name, list(array.shape), DATATYPES[spec.type.tensor_type.elem_type])
        if array.dtype.kind in "SU":
            array = array.astype(object)
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    wanted = [triton.InferRequestedOutput(output.name) for output in graph.output]
    try:
        result = client.infer(case.name, tensors, outputs=wanted, client_timeout=30)
    except triton.InferenceServerException as refused:
        return f"{refused.status()}: {refused.message()}"
    return same(case, [result.as_numpy(output.name) for output in graph.output])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="take only every N-th case")
    options = parser.parse_args()
    verdict = Verdict("ONNX backend node tests through the gateway")
    found, excluded = [], 0
    for case in cases():
        if isinstance(case, str):
            excluded += 1
        else:
            found.append(case)
    chosen = [case for case in found[:: options.every] if in_process(case)]
    verdict.control(
        f"{len(found)} cases, {excluded} more cannot be carried; of every {options.every}. case"
        f" onnxruntime in this process passes {len(chosen)}"
    )
    failures: dict[str, str] = {}
    for start in range(0, len(chosen), BATCH):
        failures |= _batch(chosen[start : start + BATCH])
    share = 1 - len(failures) / max(1, len(chosen))
    for name, why in list(failures.items())[:30]:
        print(f"    {name}: {why[:150]}")
    kinds = Counter(why.split(":")[0] for why in failures.values())
    verdict.check(
        bool(chosen) and share >= SHARE,
        f"{len(chosen) - len(failures)} of {len(chosen)} pass, {share:.1%} (at least {SHARE:.0%}); {dict(kinds)}",
    )
    verdict.end()


def _batch(chosen: Sequence[Case]) -> dict[str, str]:
    """Name -> why it failed."""
    with scratch() as folder:
        for case in chosen:
            put(folder / "models", case.name, case.model)
        with Gateway(folder, flags=["--model-repository", str(folder / "models")]) as gateway:
            client = triton.InferenceServerClient(gateway.unix)

            def settled() -> bool:
                states = [model.state for model in client.get_model_repository_index().models]
                return len(states) == len(chosen) and "LOADING" not in states

            wait_for(settled, 60, "loading of all models")
            answers = {case.name: through(client, case) for case in chosen}
            client.close()
    return {name: why for name, why in answers.items() if why}


if __name__ == "__main__":
    main()
