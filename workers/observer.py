"""The observer process: ``python -m workers.observer --link-fd 5 --settings '{...}'``; the gateway starts it."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sqlite3
import sys
from pathlib import Path
from typing import List, Optional

from edgeway.process import SETTING_REFUSED, apply_settings
from workers import process

MEMORY_LIMIT = 768 * 1024 * 1024
"""Bytes beyond what it has at its start: a reference, windows, a few large answers."""


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workers.observer", description=__doc__)
    parser.add_argument("--link-fd", type=int, required=True, help="descriptor of the stream socket to the gateway")
    parser.add_argument("--settings", required=True, help="JSON: parentPid, nice, cpus, database")
    options = parser.parse_args(arguments)
    settings = json.loads(options.settings)
    process.die_with_parent(int(settings["parentPid"]))
    # An ordinary process behind all others, also where the gateway runs before them.
    for problem in apply_settings(cpus=settings["cpus"], nice=int(settings["nice"]), realtime=0, lock=False):
        print(f"{SETTING_REFUSED}{problem}", file=sys.stderr, flush=True)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Only now: an import at the priority of the gateway that started us would hold up the gateway.
    from workers.observing.labels import Labels
    from workers.observing.service import Service

    try:
        labels = Labels(Path(settings["database"]))
    except (OSError, sqlite3.Error) as failed:
        print(f"{settings['database']}: {failed}; labels are kept in memory only", file=sys.stderr, flush=True)
        labels = Labels(None)
    process.limit_memory(MEMORY_LIMIT)
    connection = socket.socket(fileno=options.link_fd)
    connection.set_inheritable(False)
    try:
        Service(connection, labels).serve()
    except ConnectionError:
        pass  # the gateway is gone
    finally:
        labels.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
