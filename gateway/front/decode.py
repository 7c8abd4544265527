"""From the bytes of a ModelInferRequest to a Request whose form is right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from edgeway import parameters as names
from edgeway.datatypes import BY_NAME, nbytes
from edgeway.frames import MAX_DIMS, MAX_TENSORS
from edgeway.v1.open_inference_pb2 import ModelInferRequest
from gateway.errors import Conflict, InvalidRequest, NotOffered
from gateway.front.contents import raw_of
from gateway.front.region_forms import RegionForm, region_form
from gateway.front.regions import RegionOffer
from gateway.front.scan import Scanned, scan
from gateway.regions.region import Region, RegionSpan
from gateway.request import InputTensor, Request

DEFAULT_PRIORITY = 5
_LONGEST_NAME = 1024
_KEPT_HEADER = 1024
_KEPT_FORMS = 512
_KEPT_LAYOUTS = 4
"""Of messages of one length: models that take the same shape have names of the same length now and then."""
_NOTHING = memoryview(b"")
_MICRO = 1e-6
_TRACE = ("traceparent", "tracestate")
_TOLERATED = ("triton_enable_empty_final_response",)
_SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")
_AS_METADATA = {names.metadata_key(name): name for name in (names.ROUTE_KEY, names.STREAM_KEY, names.DEGRADE)}
_AS_METADATA |= {name: name for name in (names.TIMEOUT, names.PRIORITY)}
_AS_METADATA[names.metadata_key(names.HOPS)] = names.HOPS
_MOST_HOPS = 1


@dataclass(frozen=True, slots=True)
class _InputForm:
    """An input without its data."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    nbytes: int
    """What its data must have; for BYTES, at least."""
    region: RegionForm | None = None
    """Where it lies; None: in the message."""


@dataclass(frozen=True, slots=True, eq=False)
class _Form:
    """A request without its tensors. Forms are compared by identity: the same bytes give the same one."""

    model: str
    version: str
    id: str
    inputs: tuple[_InputForm, ...]
    outputs: tuple[str, ...]
    parameters: Mapping[str, Any]
    into: Mapping[str, RegionForm]
    """Outputs that are wanted in regions."""
    uses_regions: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """A message without the values of its raw tensors: one of the same length that has the same bytes around the same
    gaps would be read in the very same way.
    """

    form: _Form
    around: tuple[tuple[int, int, bytes], ...]
    """First byte, byte behind the last and content of what stands before, between and behind the tensors."""
    gaps: tuple[tuple[_InputForm, int, int], ...]
    """Each input, and where its tensor stands."""

    def fits(self, message: bytes) -> bool:
        for start, end, content in self.around:  # noqa: SIM110 - all() over a generator takes three times as long
            if message[start:end] != content:
                return False
        return True

    def inputs(self, message: bytes) -> list[InputTensor]:
        view = memoryview(message)
        return [InputTensor(form.name, form.datatype, form.shape, view[start:end]) for form, start, end in self.gaps]


@dataclass(frozen=True, slots=True, eq=False)
class _Placed:
    """A message all of whose tensors lie in regions: the same bytes mean the same, as long as these stay."""

    form: _Form
    inputs: Sequence[InputTensor]
    into: Mapping[str, RegionSpan]
    regions: tuple[Region, ...]
    nbytes: int
    """Of the inputs."""

    @property
    def stands(self) -> bool:
        for region in self.regions:  # noqa: SIM110 - all() over a generator takes three times as long
            if region.retired:
                return False
        return True


class Decoder:
    """Reads requests; keeps what it read of headers that come again and again, as those of a camera do."""

    def __init__(self, regions: RegionOffer | None = None) -> None:
        """``regions``: of the listener; None: none are offered."""
        self._regions = regions
        self._forms: dict[bytes, _Form] = {}
        self._layouts: dict[int, list[_Layout]] = {}
        """By length of the message."""
        self._placed: dict[bytes, _Placed] = {}
        """By the message."""

    def decode(
        self,
        message: bytes,
        received: float,
        time_remaining: float | None,
        metadata: Iterable[tuple[str, str | bytes]],
    ) -> Request:
        """Read one request.

        Args:
            message: as it came from the wire; the request's tensors view it.
            received: monotonic seconds.
            time_remaining: seconds of the gRPC deadline, None without one.
            metadata: of the call; parameters in it stand behind those in the message.

        Raises:
            InvalidRequest: malformed, or a contradiction in itself.
            NotOffered: a part of the protocol that this gateway lacks.
        """
        length = len(message)
        layout: _Layout | None = None
        placed = self._placed.get(message) if self._placed and length <= _KEPT_HEADER else None
        if placed is not None:
            return self._again(placed, message, received, time_remaining, metadata)
        for known in self._layouts.get(length, ()):
            if known.fits(message):
                layout, form, inputs = known, known.form, known.inputs(message)
                break
        else:
            scanned = scan(message)
            seen = self._forms.get(scanned.header)
            form = seen or self._read(scanned)
            inputs = [] if form.uses_regions else _tensors(form.inputs, message, scanned)
            if seen is not None and scanned.raw and not form.uses_regions:
                layout = self._keep(message, form, scanned)
        request = Request(
            form.model,
            form.version,
            form.id,
            inputs,
            form.outputs,
            received,
            length,
            layout,
            None if time_remaining is None else received + time_remaining,
        )
        _from_metadata(request, metadata)
        if form.parameters:
            _from_parameters(request, form.parameters)
        if form.uses_regions:
            self._place(request, form, message, scanned)
        return request

    def _keep(self, message: bytes, form: _Form, scanned: Scanned) -> _Layout:
        """The layout of a message whose header came before."""
        around, gaps, at = [], [], 0
        for each, (start, end) in zip(form.inputs, scanned.raw, strict=True):
            around.append((at, start, message[at:start]))
            gaps.append((each, start, end))
            at = end
        if at < len(message):
            around.append((at, len(message), message[at:]))
        if len(self._layouts) >= _KEPT_FORMS:
            self._layouts.clear()
        layout = _Layout(form, tuple(around), tuple(gaps))
        self._layouts[len(message)] = [layout, *self._layouts.get(len(message), ())][:_KEPT_LAYOUTS]
        return layout

    def _place(self, request: Request, form: _Form, message: bytes, scanned: Scanned) -> None:
        """Find the regions of a request; they are its own until it leaves them."""
        if self._regions is None:
            raise NotOffered("tensors in shared memory are not offered")
        regions = self._regions.allowed()
        spans = {
            index: regions.find(each.region.region).span(each.region.offset, each.region.nbytes)
            for index, each in enumerate(form.inputs)
            if each.region is not None
        }
        into = {name: regions.find(each.region).span(each.offset, each.nbytes) for name, each in form.into.items()}
        inputs = _mixed(form.inputs, spans, message, scanned)
        used = tuple([span.region for span in (*spans.values(), *into.values())])
        placed = _Placed(form, inputs, into, used, sum(span.nbytes for span in spans.values()))
        # With data in the message, or with an id, it does not come again.
        if not scanned.raw and not scanned.contents and self._forms.get(message) is form:
            if len(self._placed) >= _KEPT_FORMS:
                self._placed.clear()
            self._placed[message] = request.form = placed
        _use(request, placed)

    def _again(
        self,
        placed: _Placed,
        message: bytes,
        received: float,
        time_remaining: float | None,
        metadata: Iterable[tuple[str, str | bytes]],
    ) -> Request:
        """A message that came before, with all its tensors in regions."""
        if not placed.stands:
            del self._placed[message]
            return self.decode(message, received, time_remaining, metadata)
        form = placed.form
        deadline = None if time_remaining is None else received + time_remaining
        request = Request(form.model, form.version, form.id, (), form.outputs, received, len(message), placed, deadline)
        _from_metadata(request, metadata)
        if form.parameters:
            _from_parameters(request, form.parameters)
        _use(request, placed)
        return request

    def _read(self, scanned: Scanned) -> _Form:
        try:
            header = ModelInferRequest.FromString(scanned.header)
        except DecodeError as malformed:
            raise InvalidRequest(f"the message is no ModelInferRequest: {malformed}") from malformed
        inputs, into = _inputs(header.inputs), _into(header.outputs)
        form = _Form(
            model=header.model_name,
            version=header.model_version,
            id=header.id,
            inputs=inputs,
            outputs=_outputs(header.outputs),
            parameters={key: _plain(value) for key, value in header.parameters.items()},
            into=into,
            uses_regions=bool(into) or any(each.region for each in inputs),
        )
        # A header with an id of its own does not come again; a long one is not worth the memory.
        if not form.id and len(scanned.header) <= _KEPT_HEADER:
            if len(self._forms) >= _KEPT_FORMS:
                self._forms.clear()
            self._forms[scanned.header] = form
        return form


def _inputs(tensors: Sequence[Any]) -> tuple[_InputForm, ...]:
    if len(tensors) > MAX_TENSORS:
        raise InvalidRequest(f"expected at most {MAX_TENSORS} inputs, got {len(tensors)}")
    inputs: list[_InputForm] = []
    seen: set[str] = set()
    for index, tensor in enumerate(tensors):
        name, datatype, shape = tensor.name, tensor.datatype, tuple(tensor.shape)
        if not name or len(name) > _LONGEST_NAME or "\0" in name:
            raise InvalidRequest(f"input {index} has no usable name")
        if name in seen:
            raise InvalidRequest(f"input {name!r}: expected once, got twice")
        seen.add(name)
        if datatype not in BY_NAME:
            raise InvalidRequest(f"input {name!r}: expected a datatype of {', '.join(BY_NAME)}, got {datatype!r}")
        if len(shape) > MAX_DIMS or any(size < 0 for size in shape):
            raise InvalidRequest(
                f"input {name!r}: expected a shape of at most {MAX_DIMS} sizes >= 0, got {list(shape)[: MAX_DIMS + 1]}"
            )
        region = _tensor_parameters(f"input {name!r}", tensor.parameters) if tensor.parameters else None
        if tensor.HasField("contents"):  # the scan leaves them only beside raw ones
            raise InvalidRequest(f"input {name!r}: expected no typed contents beside raw_input_contents, got both")
        inputs.append(_InputForm(name, datatype, shape, nbytes(datatype, shape), region))
    return tuple(inputs)


def _tensors(forms: Sequence[_InputForm], message: bytes, scanned: Scanned) -> list[InputTensor]:
    raw, contents, view = scanned.raw, scanned.contents, memoryview(message)
    if raw and len(raw) != len(forms):
        raise InvalidRequest(f"raw_input_contents: expected {len(forms)}, one per input, got {len(raw)}")
    inputs = []
    for index, form in enumerate(forms):
        if raw:
            start, end = raw[index]
            data = view[start:end]
        elif index in contents:
            data = raw_of(form.name, form.datatype, form.shape, contents[index])
        else:  # a tensor of no elements has empty contents, which some clients leave out
            data = _NOTHING
        if data.nbytes != form.nbytes:
            _check_size(form, data.nbytes)
        inputs.append(InputTensor(form.name, form.datatype, form.shape, data))
    return inputs


def _use(request: Request, placed: _Placed) -> None:
    """The request has these tensors, and enters their regions."""
    request.inputs, request.into, request.regions = placed.inputs, placed.into, placed.regions
    request.nbytes += placed.nbytes
    for region in placed.regions:
        region.enter()


def _mixed(
    forms: Sequence[_InputForm], spans: Mapping[int, RegionSpan], message: bytes, scanned: Scanned
) -> list[InputTensor]:
    """Inputs of which some lie in regions: the message has the data of the others only."""
    inside = [index for index in range(len(forms)) if index not in spans]
    for index in spans:
        if index in scanned.contents:
            raise InvalidRequest(f"input {forms[index].name!r}: expected no contents beside shared memory, got both")
    contents = {position: scanned.contents[index] for position, index in enumerate(inside) if index in scanned.contents}
    sent = iter(_tensors([forms[index] for index in inside], message, Scanned(scanned.header, scanned.raw, contents)))
    inputs = []
    for index, form in enumerate(forms):
        span = spans.get(index)
        if span is None:
            inputs.append(next(sent))
            continue
        if span.nbytes != form.nbytes:
            _check_size(form, span.nbytes)
        inputs.append(InputTensor(form.name, form.datatype, form.shape, span))
    return inputs


def _check_size(form: _InputForm, got: int) -> None:
    what = f"{form.nbytes} bytes for {form.datatype} of shape {list(form.shape)}, got {got}"
    if form.datatype != "BYTES":
        raise InvalidRequest(f"input {form.name!r}: expected {what}")
    if got < form.nbytes:
        raise InvalidRequest(f"input {form.name!r}: expected at least {what}")


def _outputs(tensors: Sequence[Any]) -> tuple[str, ...]:
    if len(tensors) > MAX_TENSORS:
        raise InvalidRequest(f"at most {MAX_TENSORS} outputs, got {len(tensors)}")
    wanted = tuple(tensor.name for tensor in tensors)
    if len(set(wanted)) != len(wanted):
        raise InvalidRequest("an output is asked for twice")
    return wanted


def _into(tensors: Sequence[Any]) -> dict[str, RegionForm]:
    """Which outputs are wanted in regions, and where."""
    into = {}
    for tensor in tensors:
        region = _tensor_parameters(f"output {tensor.name!r}", tensor.parameters) if tensor.parameters else None
        if region is not None:
            into[tensor.name] = region
    return into


def _tensor_parameters(which: str, given: Mapping[str, Any]) -> RegionForm | None:
    plain = {key: _plain(value) for key, value in given.items()}
    if plain.get("classification"):
        raise NotOffered(f"{which}: classification is not offered")
    return region_form(which, plain)


def _from_metadata(request: Request, metadata: Iterable[tuple[str, str | bytes]]) -> None:
    found: dict[str, Any] = {}
    for key, value in metadata:
        if key in _TRACE:
            setattr(request, key, value)
        elif key in _AS_METADATA:
            found[_AS_METADATA[key]] = value
    if found:
        for name in (names.TIMEOUT, names.PRIORITY, names.HOPS):
            if name in found:
                try:
                    found[name] = int(found[name])
                except ValueError as wrong:
                    raise InvalidRequest(f"metadata {name}: expected an integer, got {found[name]!r}") from wrong
        _from_parameters(request, found)


def _from_parameters(request: Request, given: Mapping[str, Any]) -> None:
    for key, value in given.items():
        if key == names.TIMEOUT:
            if not _is_integer(value) or value < 0:
                raise InvalidRequest(f"parameter timeout: expected microseconds as int64 >= 0, got {value!r}")
            request.timeout = value * _MICRO if value else request.timeout
        elif key == names.PRIORITY:
            if not _is_integer(value) or not 0 <= value <= 9:
                raise InvalidRequest(f"parameter priority: expected an integer from 0 to 9, got {value!r}")
            request.priority = value or DEFAULT_PRIORITY
        elif key == names.ROUTE_KEY:
            request.route_key = _text(key, value)
        elif key == names.STREAM_KEY:
            request.stream_key = _text(key, value)
        elif key == names.DEGRADE:
            if value not in ("allow", "never"):
                raise InvalidRequest(f"parameter {key}: expected allow or never, got {value!r}")
            request.degrade = value
        elif key == names.HOPS:
            if not _is_integer(value) or value < 0:
                raise InvalidRequest(f"parameter {key}: expected an integer >= 0, got {value!r}")
            if value > _MOST_HOPS:
                raise Conflict(f"the request has come through {value} gateways, which may name each other: refused")
            request.hops = value
        elif key in _SEQUENCE:
            if value not in (0, "", False):
                raise NotOffered("sequences are not offered")
        elif key.startswith("triton_") and key not in _TOLERATED:
            raise InvalidRequest(f"parameter {key}: names that begin with triton_ are reserved")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_NAME:
        raise InvalidRequest(f"parameter {key}: expected text of at most {_LONGEST_NAME} characters, got {value!r:.80}")
    return value


def _plain(parameter: Any) -> Any:
    which = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, which) if which else None
