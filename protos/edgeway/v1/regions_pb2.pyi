from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class CreateRegionRequest(_message.Message):
    __slots__ = ("byte_size",)
    BYTE_SIZE_FIELD_NUMBER: _ClassVar[int]
    byte_size: int
    def __init__(self, byte_size: _Optional[int] = ...) -> None: ...

class CreateRegionResponse(_message.Message):
    __slots__ = ("name", "address", "token")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    token: bytes
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., token: _Optional[bytes] = ...) -> None: ...

from edgeway.v1.service import Method
SERVICES: _Mapping[str, _Mapping[str, Method]]
