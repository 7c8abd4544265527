"""Ratios and tables of the fronts' benchmark, what a changed process is told, and the bridge of threads to the loop."""

import asyncio
import mmap
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from types import SimpleNamespace

import grpc
import pytest

from benchmarks.front.__main__ import pairs_of, parse
from benchmarks.front.bootstrap import Bridge, Change, merged, replace
from benchmarks.front.callers import Seen, joined
from benchmarks.front.measure import Figures, Pair, minor_faults, processor_seconds
from benchmarks.front.tables import Ratio, base_figures, markdown, rows, text
from benchmarks.front.variants import CONTROL, LARGE, VARIANTS, chosen


def figures(p50=0.001, rate=1000.0, processor=0.0005, faults=0.0, failed=0):
    return Figures(p50, rate, processor, faults, failed)


def pair(variant, other, base=None, size="64 B", clients=1):
    return Pair(variant, size, clients, base or figures(), other)


def test_a_ratio_is_that_of_a_round_and_told_with_its_spread():
    slow_round = figures(p50=0.010, rate=100.0)
    pairs = [
        pair("uvloop", figures(p50=0.0009, rate=1100.0)),
        pair("uvloop", figures(p50=0.011, rate=90.0), slow_round),
        pair("uvloop", figures(p50=0.001, rate=1000.0)),
    ]
    row = rows(pairs)["uvloop", ("64 B", 1)]
    assert (row.p50.median, row.p50.lowest, row.p50.highest) == pytest.approx((1.0, 0.9, 1.1))
    assert (row.rate.lowest, row.rate.highest) == pytest.approx((0.9, 1.1))
    assert row.base.p50 == 0.001
    assert row.rounds == 3


def test_the_base_of_a_cell_is_the_median_of_all_that_was_measured_beside_it():
    pairs = [
        pair(name, figures(), figures(p50=p50)) for name, p50 in (("uvloop", 1.0), ("threads", 2.0), ("unix", 9.0))
    ]
    assert base_figures(pairs)["64 B", 1].p50 == 2.0


def test_only_what_no_round_of_the_control_reached_is_bold():
    pairs = [pair(CONTROL, figures(p50=p50)) for p50 in (0.0009, 0.0011)]
    pairs += [pair("uvloop", figures(p50=p50)) for p50 in (0.0010, 0.0012)]
    pairs += [pair("threads", figures(p50=p50, processor=0.001)) for p50 in (0.0013, 0.0014)]
    table = markdown(pairs, {})
    assert "| uvloop | 1.10 (1.00-1.20); 1.00 |" in table
    assert "| **1.35 (1.30-1.40)**; **2.00** |" in table
    assert Ratio(1.0, 0.9, 1.1).apart_from(Ratio(1.3, 1.2, 1.4))
    assert not Ratio(1.0, 0.9, 1.1).apart_from(Ratio(1.2, 1.1, 1.4))


def test_tables_say_what_was_not_measured_and_what_was_not_answered():
    pairs = [pair(CONTROL, figures()), pair("untuned", figures(faults=400.0, failed=2), size="0.9 MB")]
    assert "| malloc as glibc has it | - | 1.00 (1.00-1.00); 1.00 |" in markdown(pairs, {})
    assert "Not measured: pollset (unknown)." in markdown(pairs, {"pollset": "unknown"})
    assert "faults 400.0, 2 FAILED" in text(pairs, {})


def test_a_written_run_is_read_as_it_was():
    pairs = [pair("uvloop", figures(p50=0.002), size="4.9 MB", clients=16)]
    assert pairs_of({"pairs": [asdict(each) for each in pairs]}) == pairs


def test_the_control_is_always_among_the_chosen():
    assert [variant.name for variant in chosen("uvloop, threads")] == [CONTROL, "uvloop", "threads"]
    assert chosen("") == VARIANTS
    with pytest.raises(ValueError, match="no variant 'tokio'"):
        chosen("tokio")
    with pytest.raises(SystemExit):
        parse(["--variants", "tokio"])


def test_a_variant_for_large_messages_is_measured_with_those_only():
    (_, untuned) = chosen("untuned")
    assert {size for size, _ in untuned.cells} == set(LARGE)


def test_a_change_survives_the_command_line():
    change = Change("/tmp/loop", True, True, "untuned", (("grpc.so_reuseport", 1),))
    assert Change.from_json(change.to_json()) == change


def test_a_changed_argument_takes_the_place_of_the_products():
    assert merged([("grpc.so_reuseport", 0), ("a", 1)], [("grpc.so_reuseport", 1)]) == [
        ("grpc.so_reuseport", 1),
        ("a", 1),
    ]


def test_a_name_that_the_product_no_longer_has_ends_the_measurement():
    with pytest.raises(AttributeError):
        replace(SimpleNamespace(), "tune_allocator", None)


def test_all_that_variants_change_is_still_there_to_be_changed():
    change = Change(threads=True, alone=True, malloc="untuned", arguments=(("grpc.so_reuseport", 1),))
    command = [sys.executable, "-m", "benchmarks.front.bootstrap", change.to_json(), "serve", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "Run the gateway" in done.stdout


def test_what_processes_saw_is_joined():
    whole = joined([Seen([0.1, 0.3], 0, "", 1.0), Seen([0.2], 1, "UNAVAILABLE: gone", 1.5)])
    assert (whole.p50, whole.failed, whole.problem, whole.seconds) == (0.2, 1, "UNAVAILABLE: gone", 1.5)


def test_processor_time_and_faults_are_those_of_the_process():
    before, faults = processor_seconds(os.getpid()), minor_faults(os.getpid())
    with mmap.mmap(-1, 8 << 20) as fresh:  # of the heap, another test may have touched each page before
        fresh[:] = bytes(8 << 20)
    assert processor_seconds(os.getpid()) > before
    assert minor_faults(os.getpid()) > faults


@pytest.fixture
def bridged():
    """A synchronous server in front of coroutines that run on a loop of another thread; gives a channel to it."""
    loop = asyncio.new_event_loop()
    turning = threading.Thread(target=loop.run_forever)
    turning.start()

    async def double(content, context):
        assert threading.current_thread() is turning
        if not content:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "empty", (("why", "so"),))
        return content * 2

    handler = grpc.method_handlers_generic_handler("s", {"Double": grpc.unary_unary_rpc_method_handler(double)})
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers([Bridge(handler, loop)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    server.stop(0).wait(5)
    loop.call_soon_threadsafe(loop.stop)
    turning.join(5)
    loop.close()


def test_threads_hand_a_message_to_the_loop_and_give_back_its_answer(bridged):
    assert bridged.unary_unary("/s/Double")(b"ab", timeout=5) == b"abab"


def test_threads_pass_on_a_status_with_its_facts(bridged):
    with pytest.raises(grpc.RpcError) as failed:
        bridged.unary_unary("/s/Double")(b"", timeout=5)
    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert failed.value.details() == "empty"
    assert ("why", "so") in [tuple(entry) for entry in failed.value.trailing_metadata()]
