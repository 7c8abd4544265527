"""Stock tritonclient on asyncio: ``python triton_aio.py ADDRESS``; model ``identity`` must be there."""

import asyncio
import sys

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as aio


async def main() -> None:
    async with aio.InferenceServerClient(sys.argv[1]) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("identity", "1")
        assert (await client.get_server_metadata()).name == "edgeway"
        assert (await client.get_model_metadata("identity")).platform == "onnxruntime_onnx"
        assert (await client.get_model_config("identity")).config.name == "identity"
        assert (await client.get_model_repository_index()).models[0].name == "identity"
        assert (await client.get_inference_statistics()).model_stats[0].name == "identity"
        tensor = triton.InferInput("x", [3], "FP32")
        sent = np.array([1, -2, 3.5], np.float32)
        tensor.set_data_from_numpy(sent)
        results = await asyncio.gather(*(client.infer("identity", [tensor]) for _ in range(20)))
        assert all((result.as_numpy("y") == sent).all() for result in results)


asyncio.run(main())
print("ok")
