"""Draw size against speed. Needs matplotlib, the extra `plot`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import BinaryIO

from llmzip.errors import LlmzipError
from llmzip.tools.benchmark import Result

OWN, OTHER = "#b3261e", "#3d5a80"


def size_against_speed(results: Sequence[Result], stream: BinaryIO, kind: str) -> None:
    """Write a plot of compressing and decompressing, a point per tool, as "png" or "svg"; lower right is better."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise LlmzipError("plots need matplotlib (pip install 'llmzip[plot]')") from None
    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "llmzip"  # the same picture for the same numbers
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.8), sharey=True, layout="constrained")
    size = results[0].size
    figure.suptitle(f"{results[0].file}, {size / 1e6:,.2f} MB", fontsize=12)
    rows = sorted(results, key=lambda row: row.bits)
    heights = _spread([row.bits for row in rows])
    for axis, verb, speeds in (
        (axes[0], "compressing", [row.pack_speed for row in rows]),
        (axes[1], "decompressing", [row.unpack_speed for row in rows]),
    ):
        axis.set_xscale("log")
        axis.set_xlabel(f"{verb}, KB/s (right is faster)")
        column = max(speeds) * 2  # where the names are, each with a line to its point
        axis.set_xlim(min(speeds) / 2, column * (column / min(speeds)) ** 0.45)
        axis.margins(y=0.1)
        axis.grid(visible=True, axis="y", color="#dddddd", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.xaxis.set_major_formatter("{x:,.0f}")
        for row, speed, height in zip(rows, speeds, heights, strict=True):
            own = row.tool.startswith("llmzip")
            color, weight = (OWN, "bold") if own else (OTHER, "normal")
            axis.plot([speed, column], [row.bits, height], color="#aaaaaa", linewidth=0.6, zorder=1)
            axis.plot(speed, row.bits, "o", color=color, markersize=9 if own else 7)
            name = f" {row.tool}  {row.bits:.2f}"
            axis.text(column, height, name, color=color, fontweight=weight, fontsize=9, va="center")
    axes[0].set_ylabel("bits per byte (lower is smaller)")
    figure.savefig(stream, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    plt.close(figure)


def _spread(values: Sequence[float]) -> list[float]:
    """Return heights for names near rising `values`, none so close to another that they overlap."""
    gap = max(values[-1] - values[0], 0.1) / 16
    up = list(accumulate(values, lambda below, value: max(value, below + gap)))
    down = list(accumulate(reversed(values), lambda above, value: min(value, above - gap)))
    # Both keep the distance, and so does their mean, which spreads a crowd to both sides.
    return [(high + low) / 2 for high, low in zip(up, reversed(down), strict=True)]
