"""Where engines are kept: the worker's cache of them, and the place of one load in it."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Callable, Optional

from workers.backend import BackendUnavailable, Settings
from workers.engines import Build, EngineCache, Origin
from workers.tensorrt.options import Options

PLAN = "engine.plan"
TABLE = "calibration.table"
"""Files of a place."""
_MB = 1 << 20


def open_cache(settings: Settings, options: Options) -> Optional[EngineCache]:
    """Raises BackendUnavailable: its folder can't be made."""
    if not settings.cache:
        return None
    try:
        return EngineCache(os.path.join(settings.cache, "engines"), options.cache_mb * _MB)
    except OSError as failed:
        raise BackendUnavailable(f"the folder of engines: {failed}") from failed


class Place:
    """Where the engine of one load is, or is to be built: in the cache, in a build of it, or nowhere."""

    def __init__(self, cache: Optional[EngineCache], origin: Origin, tell: Callable[[str], None]) -> None:
        self._build: Optional[Build] = None
        self.folder = self.timings = ""
        """Empty: there is no cache."""
        if cache is None:
            return tell("building the engine")
        facts = {name: value for name, value in vars(origin).items() if name not in ("model", "options")}
        self.timings = cache.shared("timings", facts)
        found = cache.find(origin)
        tell("reading the engine" if found else "building the engine")
        if found is None:
            self._build = cache.begin(origin)
        self.folder = found or self._build.folder  # type: ignore[union-attr]  # one of the two is there
        return None

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *failure: Any) -> None:
        if self._build is not None:
            self._build.discard()
            self._build = None

    def get(self, name: str) -> Optional[bytes]:
        """A file of a whole entry; None: there is none."""
        if not self.folder or self._build is not None:
            return None
        with open(os.path.join(self.folder, name), "rb") as file:
            return file.read()

    def put(self, name: str, content: bytes) -> None:
        """A file of the build, if there is one."""
        if self._build is not None:
            with open(os.path.join(self._build.folder, name), "wb") as file:
                file.write(content)

    def whole(self) -> None:
        """The engine has been built, and has run."""
        if self._build is not None:
            with contextlib.suppress(OSError):  # a full disk costs the next start its time, and this one nothing
                self._build.commit()
                self._build = None
