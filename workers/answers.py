"""Answers: where the outputs of a run go, and what the gateway is told of it."""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence

from edgeway import frames
from edgeway.frames import FrameError, Reply, TensorPlace
from workers.backend import Tensor
from workers.forms import Form
from workers.models import Models
from workers.schedule import Run
from workers.sender import Sender
from workers.slots import Slots, room_needed, write_tensors


class Answers:
    """From any thread; each run gets one last answer."""

    def __init__(self, runs: Dict[int, Run], slots: Slots, models: Models, sender: Sender) -> None:
        """``runs``: by number, those that have no last answer yet; it takes them out."""
        self._runs = runs
        self._slots = slots
        self._models = models
        self._sender = sender
        self.given = 0
        """So many last answers."""

    def bound(self, run: Run) -> None:
        """The outputs are in their places, as those of the run before were."""
        form: Form = run.form
        assert form.places is not None
        count, places = len(form.places), form.replies
        self._last(run, frames.pack_done(run.number, run.received, run.started, run.finished, 0, count, places))

    def outputs(self, run: Run, outputs: List[Tensor]) -> bool:
        """Copy the outputs to where they belong, if there is room; else ask for it and say False."""
        form: Form = run.form
        memory, needed = form.slot.tensors, _room_for(run, outputs)
        if form.out_offset + needed > len(memory):
            self._ask_for_room(run, outputs, needed)
            return False
        places = self._hand_over(run, memory, form.out_offset, outputs)
        if places is not None:
            if run.regions is None or not run.regions.takes_outputs:
                form.ran(places)
            self._last(run, _done(run, places))
        return True

    def fetch(self, number: int, slot: int, offset: int) -> None:
        """There is room in this slot for outputs that were kept. Raises FrameError: there are none, or there is not."""
        run = self._runs.get(number)
        if run is None or run.outputs is None:
            raise FrameError(f"run {number} has no outputs to fetch")
        memory = self._slots.memory(slot).tensors
        if offset + _room_for(run, run.outputs) > len(memory):
            raise FrameError(f"slot {slot} is too small for the outputs of run {number}")
        outputs, run.outputs = run.outputs, None
        places = self._hand_over(run, memory, offset, outputs)
        if places is not None:
            self._last(run, _done(run, places))

    def finish(self, run: Run, status: int, outputs: Sequence[TensorPlace] = (), message: str = "") -> None:
        """The last answer of a run. It says when the run began and ended, if it did, whatever came of it."""
        self._last(run, _reply(run, status, outputs, message))

    def refuse(self, run: Run, status: int, message: str) -> None:
        """Of a run that uses no model."""
        self._sender.send(_reply(run, status, message=message))

    def _hand_over(
        self, run: Run, memory: memoryview, offset: int, outputs: List[Tensor]
    ) -> Optional[Sequence[TensorPlace]]:
        """Where in the slot the outputs lie now; None: they were wanted elsewhere, and the run has been answered."""
        form: Form = run.form
        if run.regions is None or not run.regions.takes_outputs:
            return write_tensors(memory, offset, form.wanted, outputs)
        self.finish(run, *run.regions.deliver(memory, offset, form.wanted, outputs))
        return None

    def _ask_for_room(self, run: Run, outputs: List[Tensor], needed: int) -> None:
        """Keep the outputs and say so in one step: the answer to a cancellation must not overtake it."""
        if not self._sender.send_if(lambda: run.keep(outputs), _reply(run, frames.NEEDS_SLOT, needed=needed)):
            self.finish(run, frames.CANCELLED, message="cancelled when it had run")

    def _last(self, run: Run, reply: bytes) -> None:
        form: Form = run.form
        self._runs.pop(run.number, None)
        self.given += 1
        form.busy = False  # before the reply: the next run of this form may be here at once
        self._sender.send(reply)
        run.regions = None  # the thread that ran it may keep the run for a while
        model = form.model
        assert model is not None
        if model.leave():
            self._models.closed(model)


def _reply(run: Run, status: int, outputs: Sequence[TensorPlace] = (), message: str = "", needed: int = 0) -> bytes:
    return frames.pack_reply(
        Reply(run.number, status, run.received, run.started, run.finished, needed, tuple(outputs), message)
    )


def _room_for(run: Run, outputs: Sequence[Tensor]) -> int:
    """Bytes that the outputs take in a slot."""
    return room_needed(outputs) if run.regions is None else run.regions.room_needed(run.form.wanted, outputs)


def _done(run: Run, places: Sequence[TensorPlace]) -> bytes:
    shared = run.shared if run.shared > 1 else 0
    packed = frames.pack_places(places)
    return frames.pack_done(run.number, run.received, run.started, run.finished, shared, len(places), packed)
