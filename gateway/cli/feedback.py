"""``edgeway feedback``: what the right answers would have been."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from typing import Any, TextIO

import click
import grpc

from edgeway.v1 import control_pb2 as control
from gateway.cli.control import Control, control_option
from gateway.cli.errors import fail

_HEADINGS = ("id", "request_id", "requestid", "request-id")
_OF_THE_LABEL = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT)
"""Those speak of one label, not of the gateway: the next may be taken."""
_SHOWN = 20
"""Refused labels of a file that are named."""


@click.command(short_help="Tell what the right answers were, by request id.")
@click.argument("name")
@click.option("--request-id", metavar="ID", help="The id that the request was sent with.")
@click.option("--label", metavar="L", help="What the answer should have been: a class's index or name, or a number.")
@click.option("--file", "source", metavar="FILE|-", help="Many of them: a CSV file with lines of id,label; - is stdin.")
@click.option("-o", "--output", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@control_option
def feedback(
    name: str, request_id: str | None, label: str | None, source: str | None, form: str, gateway: Control
) -> None:
    """Compare labels that came later with what NAME had answered, for the accuracy in `edgeway get deployments`.

    The newest answers to requests with an id are remembered. A label counts once.
    """
    if source is not None and (request_id is not None or label is not None):
        raise click.UsageError("--file brings its own ids and labels; leave --request-id and --label out")
    if source is not None:
        _many(gateway, name, _read(source), form)
    elif request_id is None or label is None:
        raise click.UsageError("--request-id and --label are needed, or --file")
    else:
        answer = gateway.call("Feedback", control.FeedbackRequest(name=name, request_id=request_id, label=label))
        row = {"requestId": request_id, "label": label, "version": answer.version, "predicted": answer.predicted}
        click.echo(json.dumps({**row, "right": answer.right}) if form == "json" else answer.message)


def _many(gateway: Control, name: str, pairs: list[tuple[str, str]], form: str) -> None:
    """Send all; ends with 1 when some were refused."""
    right = wrong = 0
    refused: list[dict[str, str]] = []
    with click.progressbar(pairs, label=f"labels for {name}", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        for request_id, label in bar:
            answer = _send(gateway, name, request_id, label)
            if isinstance(answer, str):
                refused.append({"requestId": request_id, "reason": answer})
            elif answer.right:
                right += 1
            else:
                wrong += 1
    if form == "json":
        click.echo(json.dumps({"labels": len(pairs), "right": right, "wrong": wrong, "refused": refused}))
    else:
        click.echo(f"{len(pairs)} labels: {right} right, {wrong} wrong, {len(refused)} refused")
        for each in refused[:_SHOWN]:
            click.echo(f"{each['requestId']}: {each['reason']}", err=True)
    if refused:
        raise SystemExit(1)


def _send(gateway: Control, name: str, request_id: str, label: str) -> Any:
    """The answer, or why this label was refused."""
    request = control.FeedbackRequest(name=name, request_id=request_id, label=label)
    try:
        return gateway.ask("Feedback", request)
    except grpc.RpcError as failed:
        problem: Any = failed
        if problem.code() not in _OF_THE_LABEL:
            fail(gateway.problem(problem))
        return str(problem.details())


def _read(source: str) -> list[tuple[str, str]]:
    try:
        if source == "-":
            return list(_pairs(sys.stdin, "stdin"))
        with open(source, encoding="utf-8-sig", newline="") as file:  # noqa: PTH123 - any name that a shell knows
            return list(_pairs(file, source))
    except (OSError, UnicodeDecodeError, csv.Error) as failed:
        fail(f"{source} can't be read: {failed}")


def _pairs(lines: TextIO, source: str) -> Iterator[tuple[str, str]]:
    """Ids and labels of a CSV file, with or without a heading."""
    reader = csv.reader(lines)
    for row in reader:
        if not row or (reader.line_num == 1 and row[0].strip().lower() in _HEADINGS):
            continue
        if len(row) != 2:
            fail(f"{source}, line {reader.line_num}: expected id,label, got {len(row)} columns")
        yield row[0].strip(), row[1].strip()
