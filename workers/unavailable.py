"""Why a backend can't work here, in words: of whatever was raised when it was imported, asked or made."""

from __future__ import annotations

import json
import platform
import sys

from edgeway.process import UNAVAILABLE
from workers.backend import BROKEN, MISCONFIGURED, MISSING_LIBRARY, BackendError, BackendUnavailable, Probe

_DISTRIBUTIONS = {"google": "protobuf"}
"""What is installed under another name than it is imported by."""
_LONGEST = 600
"""Characters: the gateway cuts long lines."""


def explain(problem: BaseException) -> BackendUnavailable:
    """With reason, code and remedy. A bug in a backend is told too: it must not look like a missing device."""
    if isinstance(problem, BackendUnavailable):
        return problem
    if isinstance(problem, BackendError):
        return BackendUnavailable(str(problem), BROKEN)
    if isinstance(problem, ModuleNotFoundError) and problem.name:
        module = problem.name.partition(".")[0]
        remedy = f"{sys.executable} -m pip install {_DISTRIBUTIONS.get(module, module)}"
        where = f"Python {platform.python_version()} at {sys.executable}"
        return BackendUnavailable(f"{where} has no module {problem.name}", MISSING_LIBRARY, remedy)
    text = f"{type(problem).__name__}: {problem}".strip().splitlines()[0]
    if isinstance(problem, (ImportError, OSError)):
        return BackendUnavailable(text, MISSING_LIBRARY, "see what the message names; reinstall the runtime")
    return BackendUnavailable(text, BROKEN, "report it to whoever provides the backend")


def refuse(name: str, problem: BaseException) -> int:
    """Tell the gateway, in one line, why this worker can't start; the exit code of that."""
    why = explain(problem)
    code, remedy = why.code, why.remedy
    if not (code and remedy):  # the backend knows more of itself than the part of it that failed
        probe = _asked(name)
        if not probe.available:
            code, remedy = code or probe.code, remedy or probe.remedy
        elif not code:
            code, remedy = MISCONFIGURED, "correct options of the worker in the device config"
    told = {"backend": name, "code": code or BROKEN, "reason": str(why)[:_LONGEST], "remedy": remedy[:_LONGEST]}
    print(f"{UNAVAILABLE}{json.dumps(told)}", file=sys.stderr, flush=True)
    return 3


def _asked(name: str) -> Probe:
    from workers.registry import probe_all

    return next((probe for _, probe in probe_all(name).values()), Probe(False, ""))
