"""Fetching over a link that is cut 20 times, and what is refused: each with its own reason, and nothing is left."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import signal
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np

from benchmarks.file_server import FileServer
from benchmarks.harness import Gateway, Verdict, manifest, scaled, scratch, wait_for
from edgeway.client import Client
from gateway.config import FetchSettings
from gateway.models.artifact import ArtifactRefused, Wanted
from gateway.models.fetch import Fetcher

MB = 1 << 20


def fetched(uri: str, sha256: str, to: Path, size: int | None = None, **settings: object) -> str:
    """The reason why it was refused; empty: it came."""
    fetcher = Fetcher(FetchSettings(**settings))
    try:
        fetcher.fetch(Wanted(uri, sha256, size), to, lambda done, total: None)
    except ArtifactRefused as refused:
        return str(refused)
    return ""


def bad_link(verdict: Verdict, folder: Path, size: int, cuts: int, rate: float) -> None:
    content = os.urandom(size)
    sha256, each = hashlib.sha256(content).hexdigest(), size // (cuts + 1)
    with FileServer(content, cuts=[each] * cuts, rate=rate) as server:
        began = time.monotonic()
        refusal = fetched(server.url(), sha256, folder / "whole", size)
        took, moved, answers = time.monotonic() - began, server.sent / size, len(server.asked)
    whole = not refusal and hashlib.sha256((folder / "whole").read_bytes()).hexdigest() == sha256
    verdict.check(
        whole and moved <= 1.2 and answers == cuts + 1,
        f"{size / MB:.0f} MB at {rate / MB:.0f} MB/s, cut {answers - 1} times: {'whole' if whole else refusal}, "
        f"{moved:.3f} of its bytes moved (at most 1.2), {took:.1f} s",
    )
    places = [each * (cut + 1) for cut in range(cuts)]
    with FileServer(content, cuts=places) as server:
        server.ranges = False
        refusal = fetched(server.url(), sha256, folder / "again", size)
        moved = server.sent / size
        verdict.control(f"cut at the same places, but the server gives no parts: {moved:.1f} times its bytes moved")
        verdict.check(not refusal and moved > 2, f"without parts it comes at last: {refusal or 'whole'}")


def liars(verdict: Verdict, folder: Path) -> None:
    """Servers that answer wrongly."""
    content = os.urandom(MB)
    sha256 = hashlib.sha256(content).hexdigest()
    reasons: list[str] = []

    def case(name: str, expected: str, refusal: str, to: Path, more: str = "", held: bool = True) -> None:
        left = [path.name for path in folder.iterdir() if path.name.startswith(to.name) and path.stat().st_size]
        reasons.append(re.sub(r"\d+", "", refusal.partition(": ")[2]))
        passed = bool(re.search(expected, refusal)) and held and not left
        verdict.check(passed, f"{name}: {refusal or 'accepted'}{more}{f', left: {left}' if left else ''}")

    with FileServer(content) as server, FileServer(content) as elsewhere:
        server.answer = _endless
        most = folder / "endless"
        size = 3 * MB
        case("a body without end", "too long", fetched(server.url(), sha256, most, size), most)
        server.answer = None
        to = folder / "length"
        case("another length", "wrong length", fetched(server.url(), sha256, to, size), to)
        to = folder / "redirect"
        server.answer = _redirect(elsewhere.url(host="localhost"))
        refusal = fetched(server.url(), sha256, to, hosts=("127.0.0.1",))
        connections = len(elsewhere.asked)
        more = f"; {connections} connections there (0)"
        case("a redirect to a forbidden host", "redirected.*not one of", refusal, to, more, connections == 0)
        server.answer = None
        to = folder / "checksum"
        case("another content", "checksum mismatch", fetched(server.url(), "0" * 64, to), to)
        verdict.check(len(set(reasons)) == len(reasons), f"{len(set(reasons))} reasons for {len(reasons)} refusals")
        to = folder / "right"
        refusal = fetched(server.url(), sha256, to, MB, hosts=("127.0.0.1",))
        verdict.control(f"the same server without a lie: {refusal or 'accepted'}")


def changed_afterwards(verdict: Verdict) -> None:
    """The stored file changes after it was verified and loaded; the worker that loads it again looks again."""
    content, other = scaled(2.0).SerializeToString(), scaled(3.0).SerializeToString()
    assert len(content) == len(other)
    with scratch() as folder, Gateway(folder) as gateway, Client(gateway.unix) as client:
        for name in ("m", "untouched"):
            gateway.run("apply", "-f", manifest(folder, name, "1.0", content if name == "m" else other), "--wait")
        ask = {"x": np.ones(2, np.float32)}
        before = client.infer("m", ask)["y"].tolist()
        stored = next((folder / "state").rglob(f"{hashlib.sha256(content).hexdigest()}*"))
        stored.chmod(0o640)
        stored.write_bytes(other)
        pid = gateway.worker()["pid"]
        os.kill(pid, signal.SIGKILL)

        def refused() -> str:
            versions = gateway.get("deployments", "m")[0]["versions"][0]
            targets = [target for target in gateway.get("targets") if target["deployment"] == "m"]
            said = [versions["reason"], *(target["reason"] for target in targets)]
            return next((reason for reason in said if "sha256" in reason or "checksum" in reason), "")

        reason = wait_for(refused, 20, "the refusal")
        wait_for(lambda: gateway.worker()["pid"] != pid and gateway.worker()["state"] == "ready", 20, "the new worker")
        answered = "nothing"
        try:
            answered = str(client.infer("m", ask)["y"].tolist())
        except Exception as failed:  # noqa: BLE001  whatever it is, it is no wrong answer
            answered = type(failed).__name__
        verdict.check(
            bool(reason) and answered != "[3.0, 3.0]",
            f"a stored file changed after verification, its worker killed: {reason}; then a request gets {answered}",
        )
        after = client.infer("untouched", ask)["y"].tolist()
        verdict.control(f"before, it answered {before}; a model whose file is as it was answers {after}")


def _endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(bytes(64 << 10))


def _redirect(target: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mb", type=int, default=50, help="size of the file")
    options.add_argument("--cuts", type=int, default=20)
    options.add_argument("--rate", type=float, default=10.0, help="MB/s of the link")
    chosen = options.parse_args()
    verdict = Verdict("models over bad links, from servers that lie")
    with scratch() as folder:
        bad_link(verdict, folder, chosen.mb * MB, chosen.cuts, chosen.rate * MB)
        liars(verdict, folder)
    changed_afterwards(verdict)
    verdict.end()


if __name__ == "__main__":
    main()
