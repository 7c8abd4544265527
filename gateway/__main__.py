"""``python -m gateway``: the ``edgeway`` command."""

from gateway.cli import main

main()
