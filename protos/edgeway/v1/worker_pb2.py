"""Generated from edgeway/v1/worker.proto by protos/generate.py: do not edit."""

from google.protobuf.message_factory import GetMessageClass

from edgeway.v1.pool import POOL

_FILE = POOL.AddSerializedFile(
    b'\n\x17edgeway/v1/worker.proto\x12\nedgeway.v1"\x90\x01\n\nTensorSpec\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x1a\n\x08datatype\x18\x02 \x01(\tR\x08data'
    b'type\x12\x14\n\x05shape\x18\x03 \x03(\x03R\x05shape\x12<\n\x0cquantization\x18\x04 \x01(\x0b2\x18.edgeway.v1.QuantizationR\x0cquantization"W\n\x0cQuan'
    b'tization\x12\x14\n\x05scale\x18\x01 \x03(\x01R\x05scale\x12\x1d\n\nzero_point\x18\x02 \x03(\x03R\tzeroPoint\x12\x12\n\x04axis\x18\x03 \x01(\x05R\x04axis"\xf3\x01\n\x05Hello\x12\x18\n\x07b'
    b'ackend\x18\x01 \x01(\tR\x07backend\x12\x12\n\x04kind\x18\x02 \x01(\tR\x04kind\x12\x10\n\x03pid\x18\x03 \x01(\x05R\x03pid\x12\x1c\n\tinstances\x18\x04 \x01(\x05R\tinstances\x12\x18\n\x07run'
    b'time\x18\x05 \x01(\tR\x07runtime\x12\x16\n\x06device\x18\x06 \x01(\tR\x06device\x12\x18\n\x07formats\x18\x07 \x03(\tR\x07formats\x12\x1d\n\ncan_cancel\x18\x08 \x01(\x08R\tcanCa'
    b'ncel\x12!\n\x0cload_seconds\x18\t \x01(\x01R\x0bloadSeconds"\xcb\x02\n\x04Load\x12\x14\n\x05model\x18\x01 \x01(\rR\x05model\x12\x12\n\x04name\x18\x02 \x01(\tR\x04name\x12\x18\n\x07ve'
    b'rsion\x18\x03 \x01(\tR\x07version\x12\x12\n\x04path\x18\x04 \x01(\tR\x04path\x12\x16\n\x06sha256\x18\x05 \x01(\tR\x06sha256\x12\x1f\n\x0bwarmup_runs\x18\x06 \x01(\rR\nwarmupRun'
    b's\x120\n\x08batching\x18\x07 \x01(\x0b2\x14.edgeway.v1.BatchingR\x08batching\x124\n\x08external\x18\x08 \x03(\x0b2\x18.edgeway.v1.ExternalFileR'
    b'\x08external\x12*\n\x06golden\x18\t \x01(\x0b2\x12.edgeway.v1.GoldenR\x06golden\x12\x1e\n\nbackground\x18\n \x01(\x08R\nbackground":\n\x0cExterna'
    b'lFile\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x16\n\x06sha256\x18\x02 \x01(\tR\x06sha256"\xdf\x01\n\x06Golden\x12\x12\n\x04path\x18\x01 \x01(\tR\x04path\x12\x16\n\x06sha256\x18\x02 \x01(\t'
    b'R\x06sha256\x12<\n\ttolerance\x18\x03 \x01(\x0b2\x1c.edgeway.v1.Golden.ToleranceH\x00R\ttolerance\x12\x14\n\x04top1\x18\x04 \x01(\x01H\x00R\x04top1\x12\x18\n\x06'
    b'cosine\x18\x05 \x01(\x01H\x00R\x06cosine\x1a3\n\tTolerance\x12\x12\n\x04rtol\x18\x01 \x01(\x01R\x04rtol\x12\x12\n\x04atol\x18\x02 \x01(\x01R\x04atolB\x06\n\x04rule"Q\n\x08Batching\x12'
    b'\x19\n\x08max_size\x18\x01 \x01(\rR\x07maxSize\x12*\n\x11max_delay_seconds\x18\x02 \x01(\x01R\x0fmaxDelaySeconds"\x80\x03\n\x06Loaded\x12\x14\n\x05model\x18\x01 \x01(\r'
    b'R\x05model\x12\x1a\n\x08platform\x18\x02 \x01(\tR\x08platform\x12.\n\x06inputs\x18\x03 \x03(\x0b2\x16.edgeway.v1.TensorSpecR\x06inputs\x120\n\x07outputs\x18\x04'
    b' \x03(\x0b2\x16.edgeway.v1.TensorSpecR\x07outputs\x12!\n\x0cmemory_bytes\x18\x05 \x01(\x04R\x0bmemoryBytes\x12!\n\x0cload_seconds\x18\x06 \x01(\x01R\x0b'
    b'loadSeconds\x12%\n\x0ewarmup_seconds\x18\x07 \x03(\x01R\rwarmupSeconds\x12\x16\n\x06golden\x18\x08 \x01(\tR\x06golden\x12)\n\x10golden_deviation\x18\t'
    b' \x01(\x01R\x0fgoldenDeviation\x12\x1e\n\nprovenance\x18\n \x01(\tR\nprovenance\x12\x12\n\x04kind\x18\x0b \x01(\tR\x04kind"\xea\x01\n\nLoadFailed\x12\x14\n\x05mode'
    b'l\x18\x01 \x01(\rR\x05model\x125\n\x06reason\x18\x02 \x01(\x0e2\x1d.edgeway.v1.LoadFailed.ReasonR\x06reason\x12\x18\n\x07message\x18\x03 \x01(\tR\x07message"'
    b'u\n\x06Reason\x12\x16\n\x12REASON_UNSPECIFIED\x10\x00\x12\x0c\n\x08REJECTED\x10\x01\x12\x0c\n\x08CHECKSUM\x10\x02\x12\x0e\n\nUNREADABLE\x10\x03\x12\n\n\x06MEMORY\x10\x04\x12\x0f\n\x0bUNA'
    b'VAILABLE\x10\x05\x12\n\n\x06BARRED\x10\x06"3\n\x07Loading\x12\x14\n\x05model\x18\x01 \x01(\rR\x05model\x12\x12\n\x04text\x18\x02 \x01(\tR\x04text"\x1f\n\x07Warming\x12\x14\n\x05model\x18'
    b'\x01 \x01(\rR\x05model"\x1e\n\x06Unload\x12\x14\n\x05model\x18\x01 \x01(\rR\x05model" \n\x08Unloaded\x12\x14\n\x05model\x18\x01 \x01(\rR\x05model"\xe7\x01\n\x06Report\x12#\n\rtem'
    b"perature_c\x18\x02 \x01(\x01R\x0ctemperatureC\x12\x16\n\x06queued\x18\x03 \x01(\rR\x06queued\x12\x18\n\x07running\x18\x04 \x01(\rR\x07running\x12'\n\x0fbacklog_seco"
    b'nds\x18\x05 \x01(\x01R\x0ebacklogSeconds\x12%\n\x0eresident_bytes\x18\x06 \x01(\x04R\rresidentBytes\x12\x12\n\x04lost\x18\x07 \x01(\tR\x04lost\x12\x1c\n\tthrottle'
    b'd\x18\x08 \x01(\x08R\tthrottledJ\x04\x08\x01\x10\x02"\'\n\tHeartbeat\x12\x1a\n\x08sequence\x18\x01 \x01(\x04R\x08sequence"\n\n\x08Shutdown"\xd6\x01\n\x08ToWorker\x12&\n\x04lo'
    b'ad\x18\x01 \x01(\x0b2\x10.edgeway.v1.LoadH\x00R\x04load\x12,\n\x06unload\x18\x02 \x01(\x0b2\x12.edgeway.v1.UnloadH\x00R\x06unload\x125\n\theartbeat\x18\x03 '
    b'\x01(\x0b2\x15.edgeway.v1.HeartbeatH\x00R\theartbeat\x122\n\x08shutdown\x18\x04 \x01(\x0b2\x14.edgeway.v1.ShutdownH\x00R\x08shutdownB\t\n\x07m'
    b'essage"\xa5\x03\n\tToGateway\x12)\n\x05hello\x18\x01 \x01(\x0b2\x11.edgeway.v1.HelloH\x00R\x05hello\x12,\n\x06loaded\x18\x02 \x01(\x0b2\x12.edgeway.v1.Loa'
    b'dedH\x00R\x06loaded\x129\n\x0bload_failed\x18\x03 \x01(\x0b2\x16.edgeway.v1.LoadFailedH\x00R\nloadFailed\x122\n\x08unloaded\x18\x04 \x01(\x0b2\x14.edg'
    b'eway.v1.UnloadedH\x00R\x08unloaded\x12,\n\x06report\x18\x05 \x01(\x0b2\x12.edgeway.v1.ReportH\x00R\x06report\x125\n\theartbeat\x18\x06 \x01(\x0b2\x15.'
    b'edgeway.v1.HeartbeatH\x00R\theartbeat\x12/\n\x07loading\x18\x07 \x01(\x0b2\x13.edgeway.v1.LoadingH\x00R\x07loading\x12/\n\x07warming\x18\x08 '
    b'\x01(\x0b2\x13.edgeway.v1.WarmingH\x00R\x07warmingB\t\n\x07messageb\x06proto3'
)
DESCRIPTOR = POOL.FindFileByName('edgeway/v1/worker.proto')

TensorSpec = GetMessageClass(DESCRIPTOR.message_types_by_name['TensorSpec'])
Quantization = GetMessageClass(DESCRIPTOR.message_types_by_name['Quantization'])
Hello = GetMessageClass(DESCRIPTOR.message_types_by_name['Hello'])
Load = GetMessageClass(DESCRIPTOR.message_types_by_name['Load'])
ExternalFile = GetMessageClass(DESCRIPTOR.message_types_by_name['ExternalFile'])
Golden = GetMessageClass(DESCRIPTOR.message_types_by_name['Golden'])
Batching = GetMessageClass(DESCRIPTOR.message_types_by_name['Batching'])
Loaded = GetMessageClass(DESCRIPTOR.message_types_by_name['Loaded'])
LoadFailed = GetMessageClass(DESCRIPTOR.message_types_by_name['LoadFailed'])
Loading = GetMessageClass(DESCRIPTOR.message_types_by_name['Loading'])
Warming = GetMessageClass(DESCRIPTOR.message_types_by_name['Warming'])
Unload = GetMessageClass(DESCRIPTOR.message_types_by_name['Unload'])
Unloaded = GetMessageClass(DESCRIPTOR.message_types_by_name['Unloaded'])
Report = GetMessageClass(DESCRIPTOR.message_types_by_name['Report'])
Heartbeat = GetMessageClass(DESCRIPTOR.message_types_by_name['Heartbeat'])
Shutdown = GetMessageClass(DESCRIPTOR.message_types_by_name['Shutdown'])
ToWorker = GetMessageClass(DESCRIPTOR.message_types_by_name['ToWorker'])
ToGateway = GetMessageClass(DESCRIPTOR.message_types_by_name['ToGateway'])
