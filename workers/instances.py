"""Instances: threads that run models, a run at a time or several together."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, List, Optional

from edgeway import frames
from edgeway.frames import FrameError
from workers.answers import Answers
from workers.backend import BackendError, DeviceFault, InvalidInput, Model, RunCancelled, Tensor
from workers.forms import Form
from workers.joining import Shared, join, split
from workers.loaded import LoadedModel
from workers.schedule import Run, Schedule
from workers.threads import start

ZOMBIE_SECONDS = 0.05
"""How long a cancelled run may go on before a spare thread takes its instance's place."""
SPARES = 4

_STATUS = ((InvalidInput, frames.INVALID_INPUT), (RunCancelled, frames.CANCELLED), (DeviceFault, frames.DEVICE_FAULT))


class Instances:
    """Take runs as the schedule has them, and see to their answers."""

    def __init__(self, count: int, schedule: Schedule, answers: Answers) -> None:
        self._count = count
        self._schedule = schedule
        self._answers = answers
        self._spares = 0
        """Threads that stand in for instances whose run can't be stopped."""
        self._sparing = threading.Lock()

    def start(self) -> None:
        for instance in range(self._count):
            start(f"instance-{instance}", self._work, self._count > 1 and instance == 0)

    def run(self, run: Run) -> None:
        """Run what was taken from the schedule, or claimed of it; by any thread."""
        try:
            if self._begin(run):
                self._run(run, run.started)
        finally:
            self._schedule.done()

    def relieve(self, run: Run) -> None:
        """A cancelled run that can't be stopped (one long kernel) must not hold up others: a spare takes its place."""
        timer = threading.Timer(ZOMBIE_SECONDS, self._replace, (run,))
        timer.daemon = True
        timer.start()

    def _replace(self, run: Run) -> None:
        with self._sparing:
            if not run.running or self._spares >= SPARES:
                return
            self._spares += 1
        self._schedule.widen(1)
        start("spare", self._stand_in, run)

    def _stand_in(self, run: Run) -> None:
        self._work(False, lambda: not run.running)
        self._schedule.widen(-1)
        with self._sparing:
            self._spares -= 1

    def _work(self, short_only: bool, until: Any = None) -> None:
        """What an instance does: one run after the other."""
        while True:
            runs = self._schedule.take(short_only, until)
            if not runs:
                return
            if len(runs) == 1:
                self.run(runs[0])
            else:
                self._run_together(runs)
            del runs  # what it holds of a model would stay in memory until the next one comes

    def _begin(self, run: Run) -> bool:
        """Mark a run as begun; False: it was too late, or nobody waits for it, and it has been answered."""
        now = time.monotonic()
        if run.cancelled:
            self._answers.finish(run, frames.CANCELLED, message="cancelled before it began")
            return False
        if now > run.deadline:
            self._answers.finish(run, frames.EXPIRED, message="the deadline was over before the run began")
            return False
        run.started = now
        run.running = True
        run.form.slot.begin()
        return True

    def _run(self, run: Run, started: float) -> None:
        form: Form = run.form
        outputs: Optional[List[Tensor]] = None
        try:
            for fill in form.fills:
                fill.now()
            if form.bound is None or not form.bound.run(run):
                outputs = self._run_unbound(run)
        except BackendError as failed:
            self._ended(run, time.monotonic())
            status = next((status for kind, status in _STATUS if isinstance(failed, kind)), frames.RUNTIME_ERROR)
            return self._answers.finish(run, status, message=str(failed))
        except Exception as bug:  # noqa: BLE001 - a bug in a backend must cost one run, not the worker's whole queue
            self._ended(run, time.monotonic())
            return self._answers.finish(run, frames.RUNTIME_ERROR, message=f"{type(bug).__name__}: {bug}")
        self._ended(run, time.monotonic())
        if run.cancelled:
            return self._answers.finish(run, frames.CANCELLED, message="cancelled while it ran")
        if outputs is None:
            self._answers.bound(run)
        elif not self._answers.outputs(run, outputs):
            return None
        assert form.model is not None
        form.model.took(form.input_bytes, run.finished - started)  # only now: the answer is on its way
        return None

    def _run_unbound(self, run: Run) -> List[Tensor]:
        """Raises BackendError, and FrameError where the frame's tensors make no sense."""
        form: Form = run.form
        form.bound = None
        if form.trouble:
            raise FrameError(form.trouble)
        assert form.model is not None
        return form.model.model.run(form.inputs, form.names, run)

    def _run_together(self, runs: List[Run]) -> None:
        """One run of the model for several; one by one if that fails, so that none is failed by another."""
        try:
            self._run_begun_together([run for run in runs if self._begin(run)])
        finally:
            self._schedule.done()

    def _run_begun_together(self, runs: List[Run]) -> None:
        if not runs:
            return
        model: LoadedModel = runs[0].form.model
        started, batch = time.monotonic(), Shared(runs)
        for run in runs:
            run.shared, run.batch = len(runs), batch
        if len(runs) == 1 or not self._ran_together(runs, model.model, batch):
            for run in runs:
                run.batch = None
                if run.cancelled:
                    self._ended(run, time.monotonic())
                    self._answers.finish(run, frames.CANCELLED, message="cancelled while it ran")
                else:
                    run.shared = 1
                    self._run(run, time.monotonic())
            return
        model.took(sum(run.form.input_bytes for run in runs), runs[0].finished - started)

    def _ran_together(self, runs: List[Run], model: Model, batch: Shared) -> bool:
        """Whether that went well; then they have been answered."""
        try:
            joined = model.run(join([run.form.inputs for run in runs]), runs[0].form.names, batch)
            shares = split(joined, [run.form.rows for run in runs])
        except RunCancelled:
            return False
        except Exception as failed:  # noqa: BLE001 - whose fault it was shows when each goes alone
            print(f"{len(runs)} runs together failed: {failed}", file=sys.stderr, flush=True)
            return False
        if shares is None:
            return False
        finished = time.monotonic()
        for run, outputs in zip(runs, shares):
            self._ended(run, finished)
            if run.cancelled:
                self._answers.finish(run, frames.CANCELLED, message="cancelled while it ran")
            else:
                self._answers.outputs(run, outputs)
        return True

    def _ended(self, run: Run, at: float) -> None:
        run.finished = at
        run.done()
        if run.cancelled and self._spares:
            self._schedule.wake()  # its spare, if it has one, is needed no longer
