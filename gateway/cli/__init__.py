"""The ``edgeway`` command."""

from __future__ import annotations

import sys

_OURS = ("gateway", "edgeway", "workers")


def main() -> None:
    """Run the command line; without the device parts, say in one line what to install."""
    try:
        from gateway.cli.root import edgeway

        edgeway(prog_name="edgeway")  # verbs are imported when they are used
    except ModuleNotFoundError as missing:
        module = (missing.name or "").partition(".")[0]
        if not module or module in _OURS:
            raise
        print(f"edgeway: {module} is not installed; run: pip install 'edgeway[device]'", file=sys.stderr)
        raise SystemExit(1) from None
