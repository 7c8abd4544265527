"""Stock kserve gRPC client, typed contents and raw: ``python kserve_client.py ADDRESS``; needs model ``identity``."""

import asyncio
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest


async def main() -> None:
    client = InferenceGRPCClient(sys.argv[1])
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("identity")
    sent = np.array([1, -2, 3.5], np.float32)
    for binary in (False, True):
        tensor = InferInput("x", [3], "FP32")
        tensor.set_data_from_numpy(sent, binary_data=binary)
        answer = await client.infer(InferRequest(model_name="identity", infer_inputs=[tensor]))
        assert (answer.outputs[0].as_numpy() == sent).all(), answer
    await client.close()


asyncio.run(main())
print("ok")
