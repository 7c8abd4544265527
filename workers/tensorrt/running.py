"""An engine as a model, run by TensorRT itself: as many runs at a time as it has lanes."""

from __future__ import annotations

import queue
from typing import Any, Callable, Dict, List, Optional, Sequence

from workers.backend import Bound, Cancellation, ModelRejected, ModelTooLarge, RunFailed, Tensor, TensorSpec
from workers.tensorrt.lanes import Lane
from workers.tensorrt.native import OUT_OF_MEMORY, CudaFault, Native
from workers.tensorrt.options import Range, misfit


def load_engine(native: Native, content: bytes, name: str, instances: int, broke: Callable[[str], None]) -> NativeModel:
    """A model from the bytes of an engine.

    Args:
        native: to run it by.
        content: of the file.
        name: for messages.
        instances: runs at a time.
        broke: told why, when a run has failed so that this process can't use the device any more.

    Raises:
        ModelRejected, ModelTooLarge.
    """
    native.log.clear()
    runtime = native.trt.Runtime(native.logger)
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise ModelRejected(
            f"{name}: {native.version} does not take this engine{native.log.because()}; an engine runs only with the "
            "version of TensorRT and on the kind of GPU that it was built with: build it here, or give the .onnx"
        )
    try:
        return NativeModel(native, runtime, engine, instances, broke)
    except CudaFault as failed:
        if failed.number == OUT_OF_MEMORY:
            raise ModelTooLarge(f"{name}: the GPU has not enough memory for the engine") from failed
        raise


class NativeModel:
    """One engine. As many runs at a time as it has lanes; more wait."""

    platform = "tensorrt_plan"
    values_matter = False

    def __init__(self, native: Native, runtime: Any, engine: Any, instances: int, broke: Callable[[str], None]) -> None:
        """Raises ModelRejected, CudaFault."""
        self._native = native
        self._runtime, self._engine = runtime, engine
        self._broke = broke
        self.inputs: List[TensorSpec] = []
        self.outputs: List[TensorSpec] = []
        self.ranges: Dict[str, Range] = {}
        """Of inputs with open sizes."""
        for index in range(engine.num_io_tensors):
            self._take(engine.get_tensor_name(index))
        layers = getattr(engine, "num_layers", 0)
        self.provenance = f"all {layers or ''} layers in one engine of {native.version}".replace("  ", " ")
        self._all: List[Lane] = []
        self._free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        try:
            for _ in range(instances):
                lane = Lane(native, engine)
                self._all.append(lane)
                self._free.put(lane)
            self._refuse_undetermined(self._all[0])
        except BaseException:
            self.close()
            raise

    def run(self, inputs: Dict[str, Tensor], outputs: Sequence[str], cancellation: Cancellation) -> List[Tensor]:
        del cancellation  # a run that the GPU has begun can't be stopped
        wrong = misfit({name: tensor.shape for name, tensor in inputs.items()}, self.ranges)
        if wrong:
            raise RunFailed(wrong)
        lane = self._free.get()
        try:
            return lane.run(inputs, self.outputs, outputs)
        except CudaFault as failed:
            if failed.number != OUT_OF_MEMORY:
                self._broke(str(failed))
            raise
        finally:
            self._free.put(lane)

    def bind(self, inputs: Dict[str, Tensor], outputs: Dict[str, Tensor]) -> Optional[Bound]:
        """The slots' memory is not pinned, and the copy from it is the only one that this would save."""
        del inputs, outputs
        return None

    def close(self) -> None:
        for lane in self._all:
            lane.close()
        self._all = []
        self._engine = self._runtime = None

    def _take(self, name: str) -> None:
        """Learn of one input or output. Raises ModelRejected: no client could send or get it."""
        trt, engine = self._native.trt, self._engine
        datatype = self._native.datatypes.get(engine.get_tensor_dtype(name))
        if datatype is None:
            raise ModelRejected(f"{name} is {engine.get_tensor_dtype(name)}, which the protocol can't carry")
        if engine.get_tensor_format(name) != trt.TensorFormat.LINEAR:
            raise ModelRejected(f"{name} is laid out as {engine.get_tensor_format(name)}; only LINEAR can be served")
        shape = tuple(int(size) for size in engine.get_tensor_shape(name))
        spec = TensorSpec(name, datatype, shape)
        if engine.get_tensor_mode(name) != trt.TensorIOMode.INPUT:
            self.outputs.append(spec)
            return
        self.inputs.append(spec)
        if -1 in shape:
            least, best, most = engine.get_tensor_profile_shape(name, 0)
            self.ranges[name] = Range(tuple(least), tuple(best), tuple(most))

    def _refuse_undetermined(self, lane: Lane) -> None:
        """Raises ModelRejected: the shape of an output depends on more than those of the inputs."""
        shapes = {spec.name: self.ranges[spec.name].best for spec in self.inputs if spec.name in self.ranges}
        for name in lane.undetermined(shapes, self.outputs):
            raise ModelRejected(f"the shape of output {name} depends on values; only ONNX Runtime serves such a model")
