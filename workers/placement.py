"""Where ONNX Runtime put a graph: asked of the session itself, and refused where it is not on the device.

A provider that is listed proves nothing: one whose library can't be loaded stays first in the list while every node
runs on the CPU. Three things together are proof: the CPU is forbidden as a fallback, the session tells which provider
got which node, and a run succeeds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping, Optional, Sequence

import numpy as np

from edgeway.datatypes import BY_NAME
from workers.backend import (
    NO_FILES,
    BackendError,
    BackendUnavailable,
    DeviceFault,
    ModelRejected,
    NotOnDevice,
    Tensor,
    TensorSpec,
)
from workers.loaded import NeverCancelled, zeros
from workers.onnx_runtime import OnnxModel, OnnxRuntime, array_of

MIN_SHARE = 0.9
"""Of the nodes, on the device. The rest can only be the outer quantization: a small graph has 2 of 20."""

_OUTER = ("QuantizeLinear", "DequantizeLinear")
"""What ONNX Runtime itself leaves on the CPU though fallback is forbidden: the conversion of a quantised graph's inputs
and outputs."""

_FORBIDDEN = "fallback to CPU EP has been explicitly disabled"
FARTHEST = 0.2
"""Norm of what the device computes otherwise than the CPU, as a share of the whole, that half precision and other ways
of rounding may explain; both compute the same graph, so what quantization costs is in both."""

_COMPARED = ("FP16", "FP32", "FP64")
_NAMED = 6
"""Operators named in a message."""


@dataclass(frozen=True)
class Placement:
    """Which provider got how many nodes of which operator."""

    nodes: Mapping[str, Mapping[str, int]]

    @classmethod
    def of(cls, session: Any) -> Optional[Placement]:
        """None: this onnxruntime can't tell, or was not asked to record it."""
        ask = getattr(session, "get_provider_graph_assignment_info", None)
        if ask is None:
            return None
        nodes: Dict[str, Counter[str]] = {}
        for part in ask():
            nodes.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
        return cls(nodes)

    @property
    def total(self) -> int:
        return sum(sum(operators.values()) for operators in self.nodes.values())

    def beside(self, providers: Sequence[str]) -> Counter[str]:
        """The operators that are on none of these providers."""
        found: Counter[str] = Counter()
        for provider, operators in self.nodes.items():
            if provider not in providers:
                found.update(operators)
        return found


class OnDevice:
    """The proof that a session runs on a device: call it with the session; it says where that runs, or refuses."""

    def __init__(self, providers: Sequence[str], min_share: float = MIN_SHARE) -> None:
        """
        Args:
            providers: that are the device, the wanted one first.
            min_share: of the nodes that must be on them.
        """
        self._providers = tuple(providers)
        self._min_share = min_share

    def prepare(self, options: Any, fallback: bool = False) -> Any:
        """Have the session record what the proof needs, and, without ``fallback``, refuse to leave nodes to the CPU."""
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "0" if fallback else "1")
        return options

    def __call__(self, session: Any) -> str:
        """Raises NotOnDevice: with the share of the nodes, and the operators at fault."""
        wanted = self._providers[0]
        listed = session.get_providers()
        if wanted not in listed:
            raise NotOnDevice(f"onnxruntime left {wanted} out; the session has {', '.join(listed)}")
        placement = Placement.of(session)
        if placement is None:
            return f"all nodes on {wanted}: fallback to the CPU is forbidden; this onnxruntime tells no more"
        total, beside = placement.total, placement.beside(self._providers)
        if not total:
            raise NotOnDevice(f"onnxruntime records no node on {wanted}: nothing proves that it runs there")
        there = total - sum(beside.values())
        share = f"{there} of {total} nodes on {self._names(placement)}"
        outer = sum(beside[operator] for operator in _OUTER)
        at_fault = Counter({operator: count for operator, count in beside.items() if operator not in _OUTER})
        if outer > len(session.get_inputs()) + len(session.get_outputs()):
            at_fault = beside
        if at_fault:
            raise NotOnDevice(f"only {share}; it would run on the CPU: {_listed(at_fault)}")
        if there < self._min_share * total:
            raise NotOnDevice(
                f"only {share}, of which minShare asks {self._min_share * 100:g} %; on the CPU: {_listed(beside)}"
            )
        return (
            f"{share}, {sum(beside.values())} on the CPU ({', '.join(sorted(beside, reverse=True))})"
            if beside
            else share
        )

    def _names(self, placement: Placement) -> str:
        used = [provider for provider in self._providers if provider in placement.nodes]
        return " and ".join(used or self._providers[:1])


def load_on(
    proof: OnDevice,
    runtime: OnnxRuntime,
    content: bytes,
    options: Callable[[], Any],
    providers: Optional[Sequence[Any]] = None,
    external: Mapping[str, bytes] = NO_FILES,
    reference: Optional[Callable[[], OnnxModel]] = None,
) -> OnnxModel:
    """A model that is proved to run on the device, and has run there once.

    Args:
        options: makes the session's options, each time anew.
        providers: as ``OnnxRuntime.model`` takes them.
        reference: makes the same model on the CPU; what the device computes is held against it.

    Raises:
        BackendUnavailable, ModelRejected, ModelTooLarge, NotOnDevice.
    """
    try:
        model = runtime.model(content, external, proof.prepare(options()), providers, proof)
    except NotOnDevice:
        raise
    except ModelRejected as refused:
        if _FORBIDDEN not in str(refused):
            raise
        # It does not say which nodes those are: a session that may fall back is asked, and thrown away.
        runtime.model(content, external, proof.prepare(options(), fallback=True), providers, proof).close()
        raise NotOnDevice("a part of the graph would run on the CPU, and onnxruntime does not say which") from refused
    try:
        if reference is None:
            run_once(model)
        else:
            hold_to(model, reference())
    except BackendError:
        model.close()
        raise
    return model


def run_once(model: OnnxModel) -> None:
    """A run on zeros, the last proof. A model with open sizes may fail it: nobody knows which it takes.

    Raises:
        BackendUnavailable: the device fails.
        ModelRejected: the model does.
    """
    inputs = {spec.name: zeros(spec) for spec in model.inputs}
    try:
        model.run(inputs, [spec.name for spec in model.outputs], NeverCancelled())
    except DeviceFault as failed:
        raise BackendUnavailable(f"it loads, but the device fails in a first run: {failed}") from failed
    except BackendError as failed:
        if all(size >= 0 for spec in model.inputs for size in spec.shape):
            raise ModelRejected(f"it loads, but a first run on zeros fails: {failed}") from failed


def hold_to(model: OnnxModel, reference: OnnxModel) -> None:
    """The same run on the device and on the CPU, which is closed then: runtimes have errors, too.

    Raises:
        BackendUnavailable: the device fails.
        ModelRejected: the model does, or the device computes something else.
    """
    inputs = {spec.name: _drawn(spec) for spec in model.inputs}
    names = [spec.name for spec in model.outputs if spec.datatype in _COMPARED]
    try:
        expected = reference.run(inputs, names, NeverCancelled())
    except BackendError:
        expected = None  # it does not take what was drawn: nothing can be said of it
    finally:
        reference.close()
    if expected is None or not names:
        return run_once(model)
    try:
        got = model.run(inputs, names, NeverCancelled())
    except DeviceFault as failed:
        raise BackendUnavailable(f"it loads, but the device fails in a first run: {failed}") from failed
    except BackendError as failed:
        raise ModelRejected(f"it loads, but a first run fails: {failed}") from failed
    for name, ours, theirs in zip(names, got, expected):
        apart = distance(array_of(ours), array_of(theirs))
        if apart > FARTHEST:
            raise ModelRejected(
                f"it loads, but output {name} of a first run on random values is {apart:.0%} off what the CPU computes"
            )
    return None


def distance(got: np.ndarray, expected: np.ndarray) -> float:
    """Norm of the difference, as a share of the expected norm. What is not finite on the CPU says nothing."""
    if got.shape != expected.shape:
        return float("inf")
    known = np.isfinite(expected)
    wanted, found = expected[known].astype(np.float64), got[known].astype(np.float64)
    apart = float(np.linalg.norm(np.where(np.isfinite(found), found, np.inf) - wanted))
    return 0.0 if not apart else apart / max(float(np.linalg.norm(wanted)), 1e-6)


def _drawn(spec: TensorSpec) -> Tensor:
    """Random values for reals and bytes; zeros for what may be an index or a text."""
    blank = zeros(spec)
    numpy_type = BY_NAME[spec.datatype].numpy
    draw = np.random.default_rng(0)
    if spec.datatype in _COMPARED:
        values = draw.standard_normal(blank.shape).astype(numpy_type)
    elif spec.datatype in ("UINT8", "INT8"):
        values = draw.integers(0, 128, blank.shape).astype(numpy_type)
    else:
        return blank
    return Tensor(spec.datatype, blank.shape, memoryview(values.tobytes()))


def read_min_share(value: Any) -> float:
    """The option ``minShare``. Raises BackendUnavailable: no share."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise BackendUnavailable(f"options.minShare: expected a number from 0 to 1, got {value!r}")
    return float(value)


def _listed(operators: Mapping[str, int]) -> str:
    """The most frequent first: ``Conv (3), Resize``."""
    ordered = sorted(operators.items(), key=lambda entry: (-entry[1], entry[0]))
    named = [f"{operator} ({count})" if count > 1 else operator for operator, count in ordered[:_NAMED]]
    more = len(ordered) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")
