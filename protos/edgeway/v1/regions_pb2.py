"""Generated from edgeway/v1/regions.proto by protos/generate.py: do not edit."""

from google.protobuf.message_factory import GetMessageClass

from edgeway.v1.pool import POOL
from edgeway.v1.service import Method

_FILE = POOL.AddSerializedFile(
    b'\n\x18edgeway/v1/regions.proto\x12\nedgeway.v1"2\n\x13CreateRegionRequest\x12\x1b\n\tbyte_size\x18\x01 \x01(\x04R\x08byteSize"Z\n\x14Cr'
    b'eateRegionResponse\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x18\n\x07address\x18\x02 \x01(\tR\x07address\x12\x14\n\x05token\x18\x03 \x01(\x0cR\x05token2V\n\x07Region'
    b's\x12K\n\x06Create\x12\x1f.edgeway.v1.CreateRegionRequest\x1a .edgeway.v1.CreateRegionResponseb\x06proto3'
)
DESCRIPTOR = POOL.FindFileByName('edgeway/v1/regions.proto')

CreateRegionRequest = GetMessageClass(DESCRIPTOR.message_types_by_name['CreateRegionRequest'])
CreateRegionResponse = GetMessageClass(DESCRIPTOR.message_types_by_name['CreateRegionResponse'])

SERVICES = {
    'edgeway.v1.Regions': {
        'Create': Method('/edgeway.v1.Regions/Create', CreateRegionRequest, CreateRegionResponse, False, False),
    },
}
