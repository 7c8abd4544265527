"""The ``edgeway`` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; without the device parts, say in one line what to install."""
    try:
        from gateway.cli.root import edgeway
    except ImportError as missing:
        print(f"edgeway: {missing.name} is not installed; run: pip install 'edgeway[device]'", file=sys.stderr)
        raise SystemExit(1) from None
    edgeway(prog_name="edgeway")
