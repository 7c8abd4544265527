"""The highest counters of signed manifests, in a file of the state directory."""

from __future__ import annotations

import json
import os
from pathlib import Path

from gateway.models.signing import Highest


class CounterFile:
    """Counters that outlive the process and the deployments. Methods block."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def highest(self, name: str) -> Highest | None:
        """Raises OSError, ValueError: the file can't be read; better nothing is accepted then than a replay."""
        found = self._all().get(name)
        return Highest(int(found[0]), str(found[1])) if found else None

    def accepted(self, name: str, counter: int, content: str) -> None:
        """Remember it unless there was a higher one; a power cut leaves the file as it was or as it shall be."""
        known = self._all()
        if name in known and counter < known[name][0]:
            return
        known[name] = (counter, content)
        partial = self._path.with_name(self._path.name + ".partial")
        with partial.open("w") as file:
            json.dump(known, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path)
        fd = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _all(self) -> dict[str, tuple[int, str]]:
        try:
            found = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        return dict(found)
