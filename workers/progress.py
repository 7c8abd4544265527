"""What loads that take their time are at: said by backends, passed on by the worker."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import Callable, Dict, Iterator, List, Tuple


class Progress:
    """Loads under way, each on a thread of its own. A new one knows of none, and what is said to it goes nowhere."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._loads: Dict[int, Tuple[int, float]] = {}
        """By thread: the model's handle, and since when."""
        self._said: Dict[int, str] = {}
        """By handle."""
        self._lock = threading.Lock()

    @contextmanager
    def of(self, model: int) -> Iterator[None]:
        """The calling thread loads this model, by its handle."""
        thread = threading.get_ident()
        with self._lock:
            self._loads[thread] = model, self._clock()
        try:
            yield
        finally:
            with self._lock:
                del self._loads[thread]
                self._said.pop(model, None)

    def teller(self) -> Callable[[str], None]:
        """Says what the load of the calling thread is at: ``building the engine``. May be called from any thread."""
        with self._lock:
            model = self._loads.get(threading.get_ident(), (None, 0.0))[0]

        def tell(text: str) -> None:
            with self._lock:
                if model is not None and any(model == under_way for under_way, _ in self._loads.values()):
                    self._said[model] = text

        return tell

    def told(self, after: float) -> List[Tuple[int, str]]:
        """Of each load that has taken more than so many seconds: its model's handle, and what it is at."""
        now = self._clock()
        with self._lock:
            return [
                (model, f"{self._said[model]}, {now - since:.0f} s" if model in self._said else f"{now - since:.0f} s")
                for model, since in self._loads.values()
                if now - since > after
            ]
