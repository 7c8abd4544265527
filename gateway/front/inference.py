"""The Open Inference Protocol service."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from edgeway.datatypes import BY_NAME
from edgeway.v1 import open_inference_pb2 as oip
from edgeway.v1 import regions_pb2
from gateway.errors import EdgewayError, InvalidRequest, NotOffered, Refused, Unavailable
from gateway.front.decode import Decoder
from gateway.front.encode import Encoder
from gateway.front.ports import Handler, Lifecycle, Models, Recorder, Repository
from gateway.front.regions import MadeRegions, RegionOffer, SystemSharedMemory
from gateway.front.status import abort, abort_outcome
from gateway.request import Outcome, Signature, TensorSpec

SERVICE = "inference.GRPCInferenceService"
REGIONS_SERVICE = "edgeway.v1.Regions"
EXTENSIONS: tuple[str, ...] = (
    "model_repository",
    "model_repository(unload_dependents)",
    "model_configuration",
    "schedule_policy",
)
EXTENSIONS += ("binary_tensor_data", "parameters", "statistics", "edgeway_budget", "edgeway_failover")

Rpc = Callable[[Any, Any], Awaitable[Message]]


class InferenceService:
    """All RPCs of the protocol. ModelInfer sees bytes on both sides; the others see messages."""

    def __init__(
        self,
        handler: Handler,
        recorder: Recorder,
        models: Models,
        lifecycle: Lifecycle,
        repository: Repository | None,
        version: str,
        regions: RegionOffer | None = None,
    ) -> None:
        """``repository``: None where loading and unloading is refused on this listener. ``regions``: None where shared
        memory is not offered at all.
        """
        self._handler = handler
        self._recorder = recorder
        self._models = models
        self._lifecycle = lifecycle
        self._repository = repository
        self._version = version
        self._encoder = Encoder()
        self._decoder = Decoder(regions)
        self._regions = regions

    def handlers(self) -> grpc.GenericRpcHandler:
        """To be added to a grpc.aio server."""
        unary: dict[str, Rpc] = {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ServerMetadata": self.server_metadata,
            "ModelReady": self.model_ready,
            "ModelMetadata": self.model_metadata,
            "ModelConfig": self.model_config,
            "ModelStatistics": self.model_statistics,
            "RepositoryIndex": self.repository_index,
            "RepositoryModelLoad": self.repository_model_load,
            "RepositoryModelUnload": self.repository_model_unload,
            "TraceSetting": self.trace_setting,
            "LogSettings": self.log_settings,
        }
        if self._regions is not None:
            memory = SystemSharedMemory(self._regions)
            unary["SystemSharedMemoryStatus"] = memory.status
            unary["SystemSharedMemoryRegister"] = memory.register
            unary["SystemSharedMemoryUnregister"] = memory.unregister
        methods = oip.SERVICES[SERVICE]
        table = {name: message_handler(methods[name].request, rpc) for name, rpc in unary.items()}
        table["ModelInfer"] = grpc.unary_unary_rpc_method_handler(self.model_infer)
        for name in methods.keys() - table.keys():
            table[name] = not_offered(name, streaming=methods[name].request_streaming)
        return grpc.method_handlers_generic_handler(SERVICE, table)

    async def model_infer(self, message: bytes, context: Any) -> bytes:
        received = time.monotonic()
        try:
            if self._lifecycle.draining:
                raise Unavailable("the gateway is shutting down")
            request = self._decoder.decode(
                message, received, context.time_remaining(), context.invocation_metadata() or ()
            )
        except EdgewayError as error:
            outcome = Outcome("", received, code=error.code, message=str(error), finished=time.monotonic())
            self._recorder.record(outcome)
            await abort(context, error)
        try:
            answer = await self._handler.handle(request)
        finally:
            for region in request.regions:
                region.leave()
        outcome = answer.outcome
        self._recorder.record(outcome)
        if outcome.code:
            await abort_outcome(context, outcome)
        try:
            outcome.finished = time.monotonic()
            return self._encoder.encode(answer, request.id)
        finally:
            answer.release()

    async def server_live(self, request: Any, context: Any) -> Message:
        return oip.ServerLiveResponse(live=True)

    async def server_ready(self, request: Any, context: Any) -> Message:
        return oip.ServerReadyResponse(ready=self._lifecycle.ready and not self._lifecycle.draining)

    async def server_metadata(self, request: Any, context: Any) -> Message:
        extensions = EXTENSIONS
        if self._regions is not None and self._regions.refuse is None:
            extensions += ("system_shared_memory",)
        return oip.ServerMetadataResponse(name="edgeway", version=self._version, extensions=extensions)

    async def model_ready(self, request: Any, context: Any) -> Message:
        ready = self._models.is_ready(request.name, request.version) and not self._lifecycle.draining
        return oip.ModelReadyResponse(ready=ready)

    async def model_metadata(self, request: Any, context: Any) -> Message:
        model = self._models.describe(request.name, request.version)
        return oip.ModelMetadataResponse(
            name=model.name,
            versions=list(model.versions),
            platform=model.signature.platform,
            inputs=list(map(_metadata, model.signature.inputs)),
            outputs=list(map(_metadata, model.signature.outputs)),
            properties={"edgeway_version": model.version, **_quantisation(model.signature)},
        )

    async def model_config(self, request: Any, context: Any) -> Message:
        model = self._models.describe(request.name, request.version)
        config = oip.ModelConfig(name=model.name, platform=model.signature.platform, backend="edgeway")
        config.max_batch_size = 0  # shapes are complete as they stand
        for spec in model.signature.inputs:
            config.input.add(name=spec.name, data_type=_number(spec), dims=list(spec.shape))
        for spec in model.signature.outputs:
            config.output.add(name=spec.name, data_type=_number(spec), dims=list(spec.shape))
        for key, text in _quantisation(model.signature).items():
            config.parameters[key].string_value = text
        config.model_transaction_policy.decoupled = False
        return oip.ModelConfigResponse(config=config)

    async def model_statistics(self, request: Any, context: Any) -> Message:
        if request.name:
            self._models.describe(request.name, request.version)
        response = oip.ModelStatisticsResponse()
        for entry in self._models.index():
            if entry.state != "READY" or request.name not in ("", entry.name):
                continue
            if request.version not in ("", entry.version):
                continue
            totals = self._recorder.statistics(entry.name, entry.version)
            stats = response.model_stats.add(name=entry.name, version=entry.version)
            stats.last_inference = totals.last_inference_ms
            stats.inference_count = stats.execution_count = totals.success_count
            inference = stats.inference_stats
            inference.success.count, inference.success.ns = totals.success_count, totals.success_ns
            inference.fail.count, inference.fail.ns = totals.fail_count, totals.fail_ns
            inference.queue.count, inference.queue.ns = totals.success_count, totals.queue_ns
            inference.compute_infer.count, inference.compute_infer.ns = totals.success_count, totals.compute_ns
        return response

    async def repository_index(self, request: Any, context: Any) -> Message:
        response = oip.RepositoryIndexResponse()
        for entry in self._models.index():
            if entry.state == "READY" or not request.ready:
                response.models.add(name=entry.name, version=entry.version, state=entry.state, reason=entry.reason)
        return response

    async def repository_model_load(self, request: Any, context: Any) -> Message:
        repository, name = self._writable(request)
        for key in request.parameters:
            raise NotOffered(f"load parameter {key!r} is not offered: the repository decides what a model is")
        await repository.load(name)
        return oip.RepositoryModelLoadResponse(model_name=name, is_loaded=True)

    async def repository_model_unload(self, request: Any, context: Any) -> Message:
        repository, name = self._writable(request)
        for key in request.parameters.keys() - {"unload_dependents"}:
            raise NotOffered(f"unload parameter {key!r} is not offered")
        await repository.unload(name)
        return oip.RepositoryModelUnloadResponse(model_name=name, is_unloaded=True)

    async def trace_setting(self, request: Any, context: Any) -> Message:
        if any(value.value for value in request.settings.values()):
            raise NotOffered("trace settings are read-only here: set telemetry in the device config")
        response = oip.TraceSettingResponse()
        response.settings["trace_mode"].value.append("opentelemetry")
        return response

    async def log_settings(self, request: Any, context: Any) -> Message:
        if request.settings:
            raise NotOffered("log settings are read-only here: set them where the gateway is started")
        response = oip.LogSettingsResponse()
        for name in ("log_info", "log_warning", "log_error"):
            response.settings[name].bool_param = True
        response.settings["log_verbose_level"].uint32_param = 0
        return response

    def _writable(self, request: Any) -> tuple[Repository, str]:
        if self._repository is None:
            raise Refused("models are loaded and unloaded on the control socket, or with --model-control explicit")
        name = request.model_name or request.repository_name  # kserve's client puts the name into the latter's field
        if not name:
            raise InvalidRequest("the request names no model")
        return self._repository, name


def region_handlers(offer: RegionOffer) -> grpc.GenericRpcHandler:
    """The service edgeway.v1.Regions, to be added to a grpc.aio server."""
    methods = regions_pb2.SERVICES[REGIONS_SERVICE]
    table = {"Create": message_handler(methods["Create"].request, MadeRegions(offer).create)}
    return grpc.method_handlers_generic_handler(REGIONS_SERVICE, table)


def message_handler(kind: Any, rpc: Rpc) -> Any:
    """A unary RPC on messages: malformed bytes are INVALID_ARGUMENT, where grpc would say UNKNOWN."""

    async def call(content: bytes, context: Any) -> bytes:
        try:
            return (await rpc(_parse(kind, content), context)).SerializeToString()
        except EdgewayError as error:
            await abort(context, error)

    return grpc.unary_unary_rpc_method_handler(call)


def not_offered(name: str, streaming: bool) -> Any:
    """An RPC of the protocol that answers UNIMPLEMENTED."""

    async def refuse(content: Any, context: Any) -> bytes:
        await abort(context, NotOffered(f"{name} is not offered by this gateway"))

    async def refuse_stream(content: Any, context: Any) -> Any:
        await abort(context, NotOffered(f"{name} is not offered by this gateway"))
        yield b""

    if streaming:
        return grpc.stream_stream_rpc_method_handler(refuse_stream)
    return grpc.unary_unary_rpc_method_handler(refuse)


def _parse(kind: Any, content: bytes) -> Any:
    try:
        return kind.FromString(content)
    except DecodeError as malformed:
        raise InvalidRequest(f"the message is no {kind.DESCRIPTOR.name}: {malformed}") from malformed


def _metadata(spec: TensorSpec) -> oip.ModelMetadataResponse.TensorMetadata:
    return oip.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape)


def _quantisation(signature: Signature) -> dict[str, str]:
    """What the integers of quantised tensors stand for, by tensor: numbers, with commas where there are several."""
    told: dict[str, str] = {}
    for spec in (*signature.inputs, *signature.outputs):
        if spec.quantisation is not None:
            told[f"quantization.{spec.name}.scale"] = ",".join(map(repr, spec.quantisation.scale))
            told[f"quantization.{spec.name}.zero_point"] = ",".join(map(str, spec.quantisation.zero_point))
            if len(spec.quantisation.scale) > 1:
                told[f"quantization.{spec.name}.axis"] = str(spec.quantisation.axis)
    return told


def _number(spec: TensorSpec) -> Any:
    return BY_NAME[spec.datatype].code  # the link's codes are Triton's DataType numbers
