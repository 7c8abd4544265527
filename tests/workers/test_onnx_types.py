import onnx
import pytest
from onnx import TensorProto

from benchmarks.contract import ONNX_TYPES
from benchmarks.harness import identity, model_of, value
from workers.onnx_types import declared_datatypes


@pytest.mark.parametrize("datatype", sorted(ONNX_TYPES))
def test_the_datatypes_of_a_model_are_read_from_its_file(datatype):
    content = identity(ONNX_TYPES[datatype], ["n", 3]).SerializeToString()
    assert declared_datatypes(content) == {"x": datatype, "y": datatype}


def test_what_the_protocol_does_not_know_has_no_name():
    sequence = onnx.helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    node = onnx.helper.make_node("SequenceEmpty", [], ["s"])
    content = model_of([node], [value("c", TensorProto.COMPLEX64, [1])], [sequence]).SerializeToString()
    assert declared_datatypes(content) == {"c": "", "s": ""}


@pytest.mark.parametrize("content", [b"\x3a\xff", b"\x3a\x04\x5a\x02\x12\x09", b"\xff" * 30])
def test_bytes_that_are_no_message_are_an_error(content):
    with pytest.raises(ValueError, match=r"cut off|bad number|kind|ends within"):
        declared_datatypes(content)
