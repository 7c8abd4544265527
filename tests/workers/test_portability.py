"""Worker code runs under vendors' older interpreters."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*(ROOT / "workers").rglob("*.py"), *(ROOT / "protos" / "edgeway").rglob("*.py")])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_worker_code_is_python_3_9(path):
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    annotated = any(
        isinstance(node, ast.AnnAssign | ast.arg) and getattr(node, "annotation", None) for node in ast.walk(tree)
    )
    assert imports or not annotated, "annotations need `from __future__ import annotations` before 3.10"
    strict = [
        n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "zip" and n.keywords
    ]
    assert not strict, "zip(strict=) came with 3.10"
    slotted = [n for n in ast.walk(tree) if isinstance(n, ast.keyword) and n.arg in ("slots", "kw_only")]
    assert not slotted, "dataclass(slots=, kw_only=) came with 3.10"
