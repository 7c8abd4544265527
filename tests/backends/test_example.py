"""The example of a backend of one's own is what the page says, and small."""

from __future__ import annotations

import ast
from pathlib import Path

from workers import registry

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "examples" / "backend" / "edgeway_linear.py"


def test_the_page_shows_the_module_as_it_is():
    page = (ROOT / "docs" / "backends.md").read_text()
    shown = page.partition("```python\n")[2].partition("```")[0]
    assert shown == MODULE.read_text()


def test_it_takes_some_sixty_lines():
    lines = [line for line in MODULE.read_text().splitlines() if line.strip()]
    assert len(lines) <= 69


def test_it_imports_numpy_and_what_a_backend_may_of_the_project():
    tree = ast.parse(MODULE.read_text(), feature_version=(3, 9))
    named = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert named <= {"__future__", "collections.abc", "typing", "workers.backend", "edgeway.tensors"}
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported == {"json", "numpy"}


def test_metadata_that_is_damaged_hides_no_built_in_backend_and_is_said(monkeypatch, capsys):
    def damaged():
        raise ValueError("bad entry point")

    monkeypatch.setattr("importlib.metadata.entry_points", damaged)
    assert registry.names() == registry.BUILT_IN
    assert "can't be listed: bad entry point" in capsys.readouterr().err
