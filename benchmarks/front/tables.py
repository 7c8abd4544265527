"""What the rounds come to: ratios to the base of the same round, and tables of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.front.measure import Figures, Pair
from benchmarks.front.variants import BASE, CONTROL, FEW, LARGE, MANY, SIZES, VARIANTS, Cell

NOT_MEASURED = "-"


@dataclass(frozen=True)
class Ratio:
    """Of the variant to the base, over the rounds."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def over(cls, ratios: Iterable[float]) -> Ratio:
        """Raises statistics.StatisticsError: there is none."""
        values = list(ratios)
        return cls(statistics.median(values), min(values), max(values))

    def apart_from(self, other: Ratio) -> bool:
        """Whether no round of the one could be one of the other."""
        return self.lowest > other.highest or self.highest < other.lowest

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.lowest:.2f}-{self.highest:.2f})"


@dataclass(frozen=True)
class Row:
    """A variant in a cell."""

    p50: Ratio
    rate: Ratio
    processor: Ratio
    base: Figures
    """Medians over the rounds."""
    other: Figures
    rounds: int


Rows = dict[tuple[str, Cell], Row]


def rows(pairs: Sequence[Pair]) -> Rows:
    """By variant and cell, in the order of measuring."""
    grouped: dict[tuple[str, Cell], list[Pair]] = {}
    for pair in pairs:
        grouped.setdefault((pair.variant, (pair.size, pair.clients)), []).append(pair)
    return {
        key: Row(
            Ratio.over(pair.other.p50 / pair.base.p50 for pair in group),
            Ratio.over(pair.other.rate / pair.base.rate for pair in group),
            Ratio.over(pair.other.processor / pair.base.processor for pair in group),
            middle([pair.base for pair in group]),
            middle([pair.other for pair in group]),
            len(group),
        )
        for key, group in grouped.items()
    }


def middle(figures: Sequence[Figures]) -> Figures:
    """The median of each figure; failed calls are added up."""
    return Figures(
        statistics.median(each.p50 for each in figures),
        statistics.median(each.rate for each in figures),
        statistics.median(each.processor for each in figures),
        statistics.median(each.faults for each in figures),
        sum(each.failed for each in figures),
    )


def base_figures(pairs: Sequence[Pair]) -> dict[Cell, Figures]:
    """The base in each cell, over all that was measured beside it."""
    grouped: dict[Cell, list[Figures]] = {}
    for pair in pairs:
        grouped.setdefault((pair.size, pair.clients), []).append(pair.base)
    return {cell: middle(figures) for cell, figures in grouped.items()}


def markdown(pairs: Sequence[Pair], missing: dict[str, str]) -> str:
    """Three tables for a page: latency, throughput, page faults."""
    found, base = rows(pairs), base_figures(pairs)

    def latency(cell: Cell) -> str:
        return f"{base[cell].p50 * 1e3:.2f} ms; {base[cell].processor * 1e6:.0f} µs"

    def throughput(cell: Cell) -> str:
        return f"{base[cell].rate:.0f}/s; {base[cell].processor * 1e6:.0f} µs"

    def faults(cell: Cell) -> str:
        return f"{base[cell].faults:.1f}"

    alone: list[Cell] = [(size, FEW) for size in SIZES]
    crowd: list[Cell] = [(size, MANY) for size in SIZES]
    large: list[Cell] = [(size, clients) for clients in (FEW, MANY) for size in LARGE]
    parts = [
        "One client. First line: p50 and the gateway's processor time per request; below, ratios to them.",
        _table(found, base, alone, latency, lambda row, control: _pair(row.p50, row.processor, control, "p50")),
        "Sixteen clients. First line: answers per second and the gateway's processor time; below, ratios (more answers"
        " are better).",
        _table(found, base, crowd, throughput, lambda row, control: _pair(row.rate, row.processor, control, "rate")),
        "Minor page faults of the gateway per request.",
        _table(found, base, large, faults, lambda row, _: f"{row.other.faults:.1f}"),
    ]
    parts += [f"Not measured: {name} ({why})." for name, why in missing.items()]
    return "\n\n".join(parts)


def _pair(first: Ratio, processor: Ratio, control: Row | None, kind: str) -> str:
    """``first; processor``; bold what is apart from the control."""
    beside = (None, None) if control is None else (getattr(control, kind), control.processor)
    texts = [_bold(str(first), first, beside[0]), _bold(f"{processor.median:.2f}", processor, beside[1])]
    return "; ".join(texts)


def _bold(text: str, own: Ratio, control: Ratio | None) -> str:
    return f"**{text}**" if control is not None and own is not control and own.apart_from(control) else text


def _table(
    found: Rows,
    base: dict[Cell, Figures],
    cells: Sequence[Cell],
    absolute: Callable[[Cell], str],
    relative: Callable[[Row, Row | None], str],
) -> str:
    cells = [cell for cell in cells if cell in base]
    several = len({clients for _, clients in cells}) > 1
    heads = [f"{size}, {clients} client{'s' * (clients > 1)}" if several else size for size, clients in cells]
    lines = [["variant", *heads], ["---"] * (len(cells) + 1), [BASE.what, *map(absolute, cells)]]
    for variant in VARIANTS:
        own = [found.get((variant.name, cell)) for cell in cells]
        if any(own):
            controls = [found.get((CONTROL, cell)) for cell in cells]
            both = zip(own, controls, strict=True)
            texts = [NOT_MEASURED if row is None else relative(row, control) for row, control in both]
            lines.append([variant.what, *texts])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def text(pairs: Sequence[Pair], missing: dict[str, str]) -> str:
    """A line for each variant and cell; those of a cell together."""
    found, base = rows(pairs), base_figures(pairs)
    lines = []
    for cell, own in base.items():
        lines.append(
            f"{cell[0]}, {cell[1]} client{'s' * (cell[1] > 1)}: base p50 {own.p50 * 1e3:.2f} ms, {own.rate:.0f}/s,"
            f" gateway {own.processor * 1e6:.0f} us and {own.faults:.1f} faults per request"
        )
        for (name, where), row in found.items():
            if where == cell:
                failed = f", {row.other.failed} FAILED" if row.other.failed else ""
                lines.append(
                    f"  {name:17} p50 x{row.p50}, answers x{row.rate}, gateway x{row.processor},"
                    f" faults {row.other.faults:.1f}{failed}"
                )
    return "\n".join(lines + [f"not measured: {name}: {why}" for name, why in missing.items()])
