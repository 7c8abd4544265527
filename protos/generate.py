"""Make the stubs from the .proto files: ``python protos/generate.py``; ``--check`` only says whether they are fresh.

A stub is a serialized descriptor in our private pool plus message classes made from it by protobuf's public
interface. protoc's own Python output would register in the default pool, and would refuse every protobuf older than
its generator or two major versions newer. The ``.pyi`` beside it is protoc's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

ROOT = Path(__file__).parent
PROTOS = sorted((ROOT / "edgeway" / "v1").glob("*.proto"))
_WIDTH = 96


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="change nothing; exit 1 when a stub is stale")
    check = arguments.parse_args().check
    stale = [path for path, text in generated().items() if not path.exists() or path.read_text("utf-8") != text]
    for path in stale:
        if check:
            print(f"stale: {path.relative_to(ROOT.parent)}; run: make protos", file=sys.stderr)
        else:
            path.write_text(generated()[path], "utf-8")
            print(f"written: {path.relative_to(ROOT.parent)}")
    return 1 if check and stale else 0


def generated() -> dict[Path, str]:
    """Path of every stub -> its content."""
    files: dict[Path, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        descriptors = Path(folder) / "descriptors"
        names = [str(path.relative_to(ROOT)) for path in PROTOS]
        command = ["protoc", f"-I{ROOT}", f"--pyi_out={folder}", f"--descriptor_set_out={descriptors}", *names]
        if protoc.main(command) != 0:
            raise SystemExit("protoc failed")
        for file in FileDescriptorSet.FromString(descriptors.read_bytes()).file:
            stub = Path(file.name).with_name(Path(file.name).stem + "_pb2.py")
            files[ROOT / stub] = module(file)
            typing = (Path(folder) / stub.with_suffix(".pyi")).read_text("utf-8")
            if file.service:
                typing += "\nfrom edgeway.v1.service import Method\nSERVICES: _Mapping[str, _Mapping[str, Method]]\n"
            files[ROOT / stub.with_suffix(".pyi")] = typing
    return files


def module(file: FileDescriptorProto) -> str:
    """Source of the module for one .proto file."""
    lines = [
        f'"""Generated from {file.name} by protos/generate.py: do not edit."""',
        "",
        "from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper" if file.enum_type else "",
        "from google.protobuf.message_factory import GetMessageClass",
        "",
        "from edgeway.v1.pool import POOL",
        "from edgeway.v1.service import Method" if file.service else "",
        "",
        "_FILE = POOL.AddSerializedFile(",
        *(f"    {chunk!r}" for chunk in _chunks(file.SerializeToString(deterministic=True))),
        ")",
        f"DESCRIPTOR = POOL.FindFileByName({file.name!r})",
        "",
    ]
    for message in file.message_type:
        lines.append(f"{message.name} = GetMessageClass(DESCRIPTOR.message_types_by_name[{message.name!r}])")
    for enum in file.enum_type:
        lines.append(f"{enum.name} = EnumTypeWrapper(DESCRIPTOR.enum_types_by_name[{enum.name!r}])")
        lines += [f"{value.name} = {value.number}" for value in enum.value]
    if file.service:
        lines += ["", "SERVICES = {"]
        for service in file.service:
            full = f"{file.package}.{service.name}"
            lines.append(f"    {full!r}: {{")
            for method in service.method:
                request, response = method.input_type.rsplit(".", 1)[1], method.output_type.rsplit(".", 1)[1]
                streaming = f"{method.client_streaming}, {method.server_streaming}"
                path = f"/{full}/{method.name}"
                lines.append(f"        {method.name!r}: Method({path!r}, {request}, {response}, {streaming}),")
            lines.append("    },")
        lines.append("}")
    return "\n".join(line for previous, line in zip(["x", *lines], lines, strict=False) if line or previous) + "\n"


def _chunks(data: bytes) -> list[bytes]:
    return [data[at : at + _WIDTH] for at in range(0, len(data), _WIDTH)]


if __name__ == "__main__":
    raise SystemExit(main())
