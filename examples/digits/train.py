"""Train the digits classifier, export it as FP32 (1.0) and static INT8 (1.1), and write down what it can.

    pip install -r requirements.txt
    python train.py

Repeatable by its seeds; takes half an hour on two cores. Crop, grey and area-resize are part of the graph, so a
robot sends its frames as they are.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from torch import nn
from torch.nn import functional

HERE = Path(__file__).parent
SCALE = 2
CHANNELS = (32, 64, 96, 128, 160)
POOLED = (True, True, False, True, True)
TRAIN_FRAMES, EPOCHS, BATCH = 6000, 8, 32
EVALUATED = 2000
CALIBRATED = 200


def main() -> None:
    torch.manual_seed(0)
    write_data()
    from frames import Frames

    images, labels = small_images(Frames(1, "train"), TRAIN_FRAMES)
    net = train(images, labels)
    first, second = HERE / "models" / "digits-1.0.onnx", HERE / "models" / "digits-1.1.onnx"
    onnx.save(export(net), first)
    quantize(first, second, Frames(2, "train"))
    facts = {}
    for version, path in (("1.0", first), ("1.1", second)):
        accuracy = evaluate(path, Frames(3, "held-out"))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        facts[version] = {"accuracy": round(accuracy, 4), "samples": EVALUATED, "sha256": digest}
        manifest = HERE / f"manifest-{version}.yaml"
        manifest.write_text(re.sub(r"sha256:[0-9a-f]*", f"sha256:{digest}", manifest.read_text()))
        print(f"{version}: accuracy {accuracy:.4f} on {EVALUATED} held-out frames, {path.stat().st_size} bytes")
    (HERE / "accuracy.json").write_text(json.dumps(facts, indent=2) + "\n")


def write_data() -> None:
    """digits.npz: scikit-learn's digits with a split, and its two sample pictures, small."""
    digits = load_digits()
    split = np.random.default_rng(0).permutation(len(digits.images)) < 1297
    pictures = [np.asarray(Image.fromarray(picture).resize((213, 142))) for picture in load_sample_images().images]
    np.savez_compressed(
        HERE / "digits.npz",
        digits=digits.images.astype(np.uint8),
        labels=digits.target.astype(np.uint8),
        train=split,
        backgrounds=np.stack(pictures),
    )


def small_images(frames, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the convolutions see of ``count`` frames: (count, 1, 192, 192) in about -1 to 1, and the labels."""
    images, labels = [], []
    for _ in range(count):
        frame, label = frames.next()
        crop = torch.from_numpy(frame[48:432, 128:512].astype(np.float32).mean(axis=2))
        images.append(functional.avg_pool2d(crop[None, None], SCALE)[0] / 127.5 - 1)
        labels.append(label)
    return torch.stack(images), torch.tensor(labels)


class Net(nn.Module):
    """Convolutions of 3x3 with batch normalisation, then an average and one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        ins = (1, *CHANNELS)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(ins, CHANNELS, strict=False))
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in CHANNELS)
        self.head = nn.Linear(CHANNELS[-1], 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv, norm, pooled in zip(self.convs, self.norms, POOLED, strict=True):
            x = functional.relu(norm(conv(x)))
            if pooled:
                x = functional.max_pool2d(x, 2)
        return self.head(x.mean((2, 3)))


def train(images: torch.Tensor, labels: torch.Tensor) -> Net:
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-3)
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    for epoch in range(EPOCHS):
        losses = []
        for batch in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = functional.cross_entropy(net(images[batch]), labels[batch], label_smoothing=0.05)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}/{EPOCHS}: loss {np.mean(losses):.3f}", flush=True)
    return net.eval()


def export(net: Net) -> onnx.ModelProto:
    """The graph from a frame to scores, batch normalisation folded into the convolutions."""
    nodes, weights = [], {}

    def constant(name: str, value: np.ndarray) -> str:
        weights[name] = numpy_helper.from_array(value, name)
        return name

    def add(op: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    bounds = [
        constant(n, np.array(v, np.int64)) for n, v in (("top", [48, 128]), ("end", [432, 512]), ("axes", [0, 1]))
    ]
    x = add("Slice", ["frame", *bounds], "crop")
    x = add("Cast", [x], "real", to=TensorProto.FLOAT)
    x = add("ReduceMean", [x], "grey", axes=[2], keepdims=0)
    x = add("Unsqueeze", [x, constant("front", np.array([0, 1], np.int64))], "image")
    x = add("AveragePool", [x], "resized", kernel_shape=[SCALE, SCALE], strides=[SCALE, SCALE])
    x = add("Mul", [x, constant("scale", np.float32(1 / 127.5))], "scaled")
    x = add("Sub", [x, constant("one", np.float32(1))], "normal")
    for index, (conv, norm, pooled) in enumerate(zip(net.convs, net.norms, POOLED, strict=True)):
        factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        kernel = (conv.weight * factor[:, None, None, None]).detach().numpy()
        bias = ((conv.bias - norm.running_mean) * factor + norm.bias).detach().numpy()
        inputs = [x, constant(f"kernel{index}", kernel), constant(f"bias{index}", bias)]
        x = add("Conv", inputs, f"conv{index}", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        x = add("Relu", [x], f"relu{index}")
        if pooled:
            x = add("MaxPool", [x], f"pool{index}", kernel_shape=[2, 2], strides=[2, 2])
    x = add("GlobalAveragePool", [x], "mean")
    x = add("Flatten", [x], "flat")
    head = [constant("head", net.head.weight.detach().numpy()), constant("head_bias", net.head.bias.detach().numpy())]
    x = add("Gemm", [x, *head], "logits", transB=1)
    x = add("Softmax", [x], "softmax", axis=1)
    add("Reshape", [x, constant("ten", np.array([10], np.int64))], "scores")
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, [480, 640, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [10])],
        list(weights.values()),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


class Calibration(CalibrationDataReader):
    """Training frames, for the ranges of activations."""

    def __init__(self, frames) -> None:
        self._feeds = iter([{"frame": frames.next()[0]} for _ in range(CALIBRATED)])

    def get_next(self) -> dict | None:
        return next(self._feeds, None)


def quantize(source: Path, target: Path, frames) -> None:
    quantize_static(
        source,
        target,
        Calibration(frames),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "MaxPool"],
    )


def evaluate(path: Path, frames) -> float:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    right = 0
    for _ in range(EVALUATED):
        frame, label = frames.next()
        right += int(session.run(["scores"], {"frame": frame})[0].argmax()) == label
    return right / EVALUATED


if __name__ == "__main__":
    main()
