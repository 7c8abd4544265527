"""The variants of the gateway process, as data: what is done to it before it starts, and where it is measured."""

from __future__ import annotations

from dataclasses import dataclass

MB = 1 << 20
SIZES = {"64 B": 64, "0.9 MB": 480 * 640 * 3, "4.9 MB": 640 * 640 * 3 * 4}
"""Bytes of the input tensor: a row of numbers, a camera frame of uint8, a network input of float32."""
LARGE = ("0.9 MB", "4.9 MB")
FEW, MANY = 1, 16
"""Clients, each with a connection of its own and one call at a time."""

Cell = tuple[str, int]
"""(size, clients)."""


@dataclass(frozen=True)
class Variant:
    """One form of the front. What is not said is as the product has it."""

    name: str
    what: str
    uvloop: bool = False
    threads: bool = False
    """A synchronous server whose handlers hand their message to the loop."""
    alone: bool = False
    """The handler answers at once."""
    experiments: str = ""
    """Value of GRPC_EXPERIMENTS."""
    malloc: str = ""
    """``untuned``: as glibc has it; ``one-arena``: tuned, and no arena per thread."""
    arguments: tuple[tuple[str, int], ...] = ()
    """Channel arguments of the server."""
    unix: bool = False
    processes: int = 1
    shared_port: bool = False
    """All processes accept on one TCP port; otherwise each has its own, and the clients are dealt out."""
    workers: int = 1
    """Of each process."""
    sizes: tuple[str, ...] = tuple(SIZES)
    clients: tuple[int, ...] = (FEW, MANY)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Where it is measured, in order."""
        return tuple((size, count) for count in self.clients for size in self.sizes)


BASE = Variant("base", "as shipped: grpc.aio on the stock loop, tuned malloc, TCP")
CONTROL = "again"
"""The base beside itself: how far apart two equal things seem to be."""

VARIANTS = (
    Variant(CONTROL, "control: the same, started once more"),
    Variant("alone", "control: the front alone, which answers at once", alone=True),
    Variant("unix", "Unix socket instead of TCP", unix=True),
    Variant("uvloop", "uvloop", uvloop=True),
    Variant("threads", "synchronous server, threads hand over to the loop", threads=True),
    Variant("no-engine", "gRPC's event engine off", experiments="-event_engine_client,-event_engine_listener"),
    Variant("callback-cq", "experiment event_engine_callback_cq", experiments="event_engine_callback_cq"),
    Variant("pollset", "experiment pollset_alternative", experiments="pollset_alternative"),
    Variant("frame-tuning", "experiment tcp_frame_size_tuning", experiments="tcp_frame_size_tuning", sizes=LARGE),
    Variant("lowat", "experiment tcp_rcv_lowat", experiments="tcp_rcv_lowat", sizes=LARGE),
    Variant("untuned", "malloc as glibc has it", malloc="untuned", sizes=LARGE),
    Variant("one-arena", "tuned malloc with one arena", malloc="one-arena", sizes=LARGE),
    Variant(
        "lookahead",
        "look-ahead 8 MB, frames of 1 MB",
        arguments=(("grpc.http2.lookahead_bytes", 8 * MB), ("grpc.http2.max_frame_size", MB)),
        sizes=LARGE,
    ),
    Variant("no-bdp", "bandwidth probe off", arguments=(("grpc.http2.bdp_probe", 0),), sizes=LARGE),
    Variant(
        "lookahead-no-bdp",
        "both",
        arguments=(
            ("grpc.http2.lookahead_bytes", 8 * MB),
            ("grpc.http2.max_frame_size", MB),
            ("grpc.http2.bdp_probe", 0),
        ),
        sizes=LARGE,
    ),
    Variant(
        "read-chunk",
        "reads of 1 to 4 MB",
        arguments=(
            ("grpc.experimental.tcp_read_chunk_size", MB),
            ("grpc.experimental.tcp_min_read_chunk_size", MB),
            ("grpc.experimental.tcp_max_read_chunk_size", 4 * MB),
        ),
        sizes=LARGE,
    ),
    Variant(
        "preferred-frame",
        "preferred frame size",
        arguments=(("grpc.experimental.http2.enable_preferred_frame_size", 1),),
        sizes=LARGE,
    ),
    Variant("two-workers", "control: one gateway, two workers", workers=2, clients=(MANY,)),
    Variant("two-port", "two gateways on one port (SO_REUSEPORT)", processes=2, shared_port=True, clients=(MANY,)),
    Variant("two-sockets", "two gateways, clients dealt out", processes=2, clients=(MANY,)),
)


def chosen(names: str) -> tuple[Variant, ...]:
    """Variants by name, comma-separated; empty: all. The control is always among them.

    Raises:
        ValueError: there is no such variant.
    """
    known = {variant.name: variant for variant in VARIANTS}
    wanted = [name.strip() for name in names.split(",") if name.strip()] or list(known)
    for name in wanted:
        if name not in known:
            raise ValueError(f"no variant {name!r}; there are {', '.join(known)}")
    return tuple(variant for name, variant in known.items() if name in wanted or name == CONTROL)
