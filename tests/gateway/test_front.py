"""The bytes of requests and answers, against protobuf's own reading of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeway import parameters as names
from edgeway.tensors import BY_NAME, encode_bytes
from edgeway.v1 import open_inference_pb2 as oip
from edgeway.wire import read_varint, varint
from gateway.errors import EdgewayError, InvalidRequest, NotOffered
from gateway.front.decode import Decoder
from gateway.front.encode import Encoder
from gateway.front.scan import MAX_HEADER, scan
from gateway.request import Answer, AttemptRecord, Outcome, OutputTensor

FIXED = {name: datatype for name, datatype in BY_NAME.items() if datatype.numpy is not None}
TYPED = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
tensors = st.lists(
    st.tuples(st.sampled_from(sorted(FIXED)), st.lists(st.integers(0, 4), max_size=3)), min_size=1, max_size=4
)
texts = st.text(max_size=20).filter(lambda text: "\0" not in text)


def decode(message: bytes, remaining: float | None = None, metadata=()):
    return Decoder().decode(message, 50.0, remaining, metadata)


@given(tensors, texts, texts, st.randoms())
def test_a_raw_request_is_read_as_protobuf_reads_it(given_tensors, version, request_id, random):
    message = oip.ModelInferRequest(model_name="m", model_version=version, id=request_id)
    for number, (datatype, shape) in enumerate(given_tensors):
        message.inputs.add(name=f"x{number}", datatype=datatype, shape=shape)
        message.raw_input_contents.append(random.randbytes(int(np.prod(shape)) * FIXED[datatype].itemsize))
    decoder = Decoder()
    for _ in range(2):  # the second time from what it kept
        request = decoder.decode(message.SerializeToString(), 50.0, None, ())
        assert (request.model, request.version, request.id) == ("m", version, request_id)
        assert [(t.name, t.datatype, list(t.shape)) for t in request.inputs] == [
            (t.name, t.datatype, list(t.shape)) for t in message.inputs
        ]
        assert [bytes(t.data) for t in request.inputs] == list(message.raw_input_contents)


def read_of(decoder: Decoder, message: bytes) -> object:
    """All that the decoder says of a message; what it raises counts as well."""
    try:
        request = decoder.decode(message, 50.0, None, ())
    except EdgewayError as refused:
        return type(refused), str(refused)
    inputs = [(each.name, each.datatype, each.shape, bytes(each.data)) for each in request.inputs]
    return request.model, request.version, request.id, inputs, request.outputs, request.nbytes, request.priority


@given(
    st.lists(st.tuples(st.sampled_from(("a", "b" * 40)), tensors, st.booleans()), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 2), st.none() | st.integers(0, 200), st.integers(0, 255)), max_size=12),
    st.randoms(),
)
def test_what_is_remembered_of_earlier_messages_changes_nothing(forms, sequence, random):
    """Messages of few forms with new values each time, now and then with one byte changed anywhere."""
    decoder = Decoder()
    for which, position, value in sequence:
        model, given_tensors, with_output = forms[which % len(forms)]
        message = oip.ModelInferRequest(model_name=model)
        for number, (datatype, shape) in enumerate(given_tensors):
            message.inputs.add(name=f"x{number}", datatype=datatype, shape=shape)
            message.raw_input_contents.append(random.randbytes(int(np.prod(shape)) * FIXED[datatype].itemsize))
        if with_output:
            message.outputs.add(name="y")
        content = bytearray(message.SerializeToString())
        if position is not None:
            content[position % len(content)] = value
        assert read_of(decoder, bytes(content)) == read_of(Decoder(), bytes(content))


def test_requests_that_differ_only_in_values_share_a_form_and_others_do_not():
    def message(shape: list[int], model: str = "m") -> bytes:
        request = oip.ModelInferRequest(model_name=model)
        request.inputs.add(name="x", datatype="UINT8", shape=shape)
        request.raw_input_contents.append(np.random.default_rng().bytes(int(np.prod(shape))))
        return request.SerializeToString()

    decoder = Decoder()
    forms = [decoder.decode(message([2, 3]), 50.0, None, ()).form for _ in range(4)]
    assert forms[:1] == [None], "a header that never comes again is not worth remembering"
    assert forms[1] is forms[2] is forms[3] is not None
    for other in (message([3, 2]), message([2, 3], "n")):
        assert [decoder.decode(other, 50.0, None, ()).form is forms[1] for _ in range(3)] == [False] * 3


@given(st.sampled_from(sorted(TYPED)), st.lists(st.integers(0, 1), max_size=8))
def test_typed_contents_become_the_same_bytes_as_raw_ones(datatype, values):
    message = oip.ModelInferRequest(model_name="m")
    tensor = message.inputs.add(name="x", datatype=datatype, shape=[len(values)])
    getattr(tensor.contents, TYPED[datatype]).extend(values)
    (read,) = decode(message.SerializeToString()).inputs
    assert bytes(read.data) == np.array(values, FIXED[datatype].numpy).tobytes()


@given(st.lists(st.binary(max_size=9), max_size=5))
def test_typed_bytes_become_length_prefixed_elements(elements):
    message = oip.ModelInferRequest(model_name="m")
    message.inputs.add(name="x", datatype="BYTES", shape=[len(elements)]).contents.bytes_contents.extend(elements)
    (read,) = decode(message.SerializeToString()).inputs
    assert bytes(read.data) == encode_bytes(elements)


@given(st.binary(max_size=400))
def test_noise_is_read_or_refused_and_never_crashes(noise):
    try:
        decode(noise)
    except EdgewayError as refused:
        assert isinstance(refused, InvalidRequest | NotOffered)


@given(st.data())
def test_a_damaged_request_is_read_or_refused(data):
    message = oip.ModelInferRequest(model_name="m")
    message.inputs.add(name="x", datatype="FP32", shape=[4])
    message.raw_input_contents.append(bytes(16))
    damaged = bytearray(message.SerializeToString())
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))
    except EdgewayError as refused:
        assert isinstance(refused, InvalidRequest | NotOffered)


def test_a_header_of_millions_of_empty_messages_is_refused_before_it_costs_memory():
    with pytest.raises(InvalidRequest, match="fields"):
        scan(b"\x2a\x00" * 100_000)
    with pytest.raises(InvalidRequest, match=str(MAX_HEADER)):
        scan(b"\x0a\xff\xff\x07" + bytes((7 << 14) + (127 << 7) + 127))


def test_parameters_set_budget_priority_and_keys():
    message = oip.ModelInferRequest(model_name="m")
    message.parameters[names.TIMEOUT].int64_param = 20_000
    message.parameters[names.PRIORITY].uint64_param = 2
    message.parameters[names.ROUTE_KEY].string_param = "robot-7"
    message.parameters[names.DEGRADE].string_param = "never"
    request = decode(message.SerializeToString(), remaining=3.0)
    assert (request.timeout, request.priority, request.route_key, request.degrade) == (0.02, 2, "robot-7", "never")
    assert request.deadline == 53.0


def test_metadata_sets_what_the_message_does_not():
    message = oip.ModelInferRequest(model_name="m")
    message.parameters[names.TIMEOUT].int64_param = 20_000
    metadata = [("timeout", "90000"), ("edgeway-route-key", "k"), ("traceparent", "00-a-b-01"), ("user-agent", "x")]
    request = decode(message.SerializeToString(), metadata=metadata)
    assert (request.timeout, request.route_key, request.traceparent) == (0.02, "k", "00-a-b-01")


@pytest.mark.parametrize(
    ("key", "field", "value"),
    [
        (names.TIMEOUT, "string_param", "1"),
        (names.TIMEOUT, "int64_param", -1),
        (names.TIMEOUT, "bool_param", True),
        (names.PRIORITY, "int64_param", 10),
        (names.PRIORITY, "int64_param", -1),
        (names.DEGRADE, "string_param", "perhaps"),
        (names.ROUTE_KEY, "int64_param", 3),
        ("triton_anything", "int64_param", 3),
    ],
)
def test_a_parameter_of_a_wrong_type_or_range_is_refused_by_name(key, field, value):
    message = oip.ModelInferRequest(model_name="m")
    setattr(message.parameters[key], field, value)
    with pytest.raises(InvalidRequest, match=key):
        decode(message.SerializeToString())


numbers = st.floats(0, 1e5, allow_nan=False)


@given(st.lists(st.lists(st.integers(0, 3), max_size=3), max_size=3), numbers, st.floats(-1e3, 1e3), texts)
def test_an_answer_is_what_protobuf_would_have_written(shapes, total, left, request_id):
    outcome = Outcome("m", 10.0, version="2.3", target="orin", accelerator="tensorrt", kind="hardware")
    outcome.degraded, outcome.reason, outcome.finished = True, "hot", 10.0 + total
    outcome.deadline = outcome.finished + left if outcome.finished + left > 0 else 0.0
    outcome.serve(AttemptRecord("orin", "tensorrt", "hardware", 10.0, run_started=10.5, run_ended=10.75))
    outcome.attempts.append(outcome.served)
    outcome.attempts.append(AttemptRecord("cpu", "cpu", "cpu", 10.6))
    outputs = [
        OutputTensor(f"y{i}", "FP32", tuple(shape), memoryview(np.zeros(shape, np.float32).tobytes()))
        for i, shape in enumerate(shapes)
    ]
    answer = Answer(outputs, outcome, lambda: None)
    encoder = Encoder()
    for _ in range(2):
        read = oip.ModelInferResponse.FromString(encoder.encode(answer, request_id))
        assert (read.model_name, read.model_version, read.id) == ("m", "2.3", request_id)
        assert [list(tensor.shape) for tensor in read.outputs] == shapes
        assert [len(raw) for raw in read.raw_output_contents] == [output.data.nbytes for output in outputs]
        facts = read.parameters
        assert (facts[names.TARGET].string_param, facts[names.KIND].string_param) == ("orin", "hardware")
        assert (facts[names.DEGRADED].bool_param, facts[names.REASON].string_param) == (True, "hot")
        assert facts[names.QUEUE_US].int64_param == 500_000
        assert facts[names.COMPUTE_US].int64_param == 250_000
        assert facts[names.TOTAL_US].int64_param == int(outcome.total_seconds * 1e6)
        assert facts[names.BUDGET_LEFT_US].int64_param == int(outcome.budget_left * 1e6)


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_number_is_what_protobuf_reads_back(value):
    encoded = varint(value)
    assert oip.InferParameter.FromString(b"\x10" + encoded).int64_param == value
    assert read_varint(encoded, 0, len(encoded)) == (value % 2**64, len(encoded))
