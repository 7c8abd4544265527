"""Stock tritonclient, blocking: ``python triton_sync.py ADDRESS``; model ``identity`` must be there."""

import sys

import numpy as np
import tritonclient.grpc as triton

client = triton.InferenceServerClient(sys.argv[1])
assert client.is_server_live()
assert client.is_server_ready()
assert client.is_model_ready("identity")
server = client.get_server_metadata()
assert server.name == "edgeway", server
metadata = client.get_model_metadata("identity")
assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [("x", "FP32", [-1])], metadata
assert list(metadata.versions) == ["1"], metadata
config = client.get_model_config("identity").config
assert (config.name, config.max_batch_size, config.input[0].name) == ("identity", 0, "x"), config
index = client.get_model_repository_index()
assert [(m.name, m.version, m.state) for m in index.models] == [("identity", "1", "READY")], index
tensor = triton.InferInput("x", [5], "FP32")
sent = np.arange(5, dtype=np.float32)
tensor.set_data_from_numpy(sent)
before = client.get_inference_statistics("identity").model_stats[0].inference_stats.success.count
for options in ({}, {"client_timeout": 5.0, "timeout": 2_000_000, "priority": 3, "request_id": "r1"}):
    result = client.infer("identity", [tensor], outputs=[triton.InferRequestedOutput("y")], **options)
    assert (result.as_numpy("y") == sent).all()
assert result.get_response().id == "r1"
facts = result.get_response().parameters
assert facts["edgeway_target"].string_param == "cpu", facts
assert facts["edgeway_degraded"].bool_param is False, facts
text = triton.InferInput("x", [5], "FP32")
text.set_data_from_numpy(sent)
results = []
client.async_infer("identity", [text], lambda result, error: results.append((result, error)))
with triton.InferenceServerClient(sys.argv[1]) as second:
    assert second.infer("identity", [text], compression_algorithm="gzip").as_numpy("y").sum() == sent.sum()
stats = client.get_inference_statistics("identity").model_stats[0]
assert stats.inference_stats.success.count >= before + 3, stats
try:
    client.infer("unknown", [tensor])
    raise SystemExit("an unknown model was served")
except triton.InferenceServerException as refused:
    assert refused.status() == "StatusCode.NOT_FOUND", refused
print("ok")
