"""A fake device: a tree of sysfs and proc files in a temporary folder."""

from __future__ import annotations

from pathlib import Path

import pytest


class Tree:
    """Writes files below one root; the root of ``/sys`` or ``/proc`` as a test wants it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, path: str, content: object) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")
        return file

    def zone(self, number: int, kind: str, temp: object, *trips: tuple[str, int]) -> Path:
        folder = f"class/thermal/thermal_zone{number}"
        self.put(f"{folder}/type", kind)
        self.put(f"{folder}/temp", temp)
        for index, (trip, raw) in enumerate(trips):
            self.put(f"{folder}/trip_point_{index}_type", trip)
            self.put(f"{folder}/trip_point_{index}_temp", raw)
        return self.root / folder

    def cooling(self, number: int, kind: str, state: int) -> None:
        self.put(f"class/thermal/cooling_device{number}/type", kind)
        self.put(f"class/thermal/cooling_device{number}/cur_state", state)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)
