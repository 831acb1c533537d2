"""Show an inspection: a page that needs nothing else, and a few lines for the terminal."""

from __future__ import annotations

import html
import json
from itertools import accumulate
from pathlib import Path
from string import Template

import numpy as np

from llmzip.tools.inspection import Inspection, Token

COSTLY = 8  # passages shown
BINS = 120  # of the plot
COLOURS = (0.5, 1.5, 3, 5, 8, 12)  # bits from which a token is coloured one step more
WIDTH, HEIGHT, LEFT, BOTTOM = 720, 220, 34, 22  # of the plot

CODERS = (
    ("llmzip", "bits"),
    ("language model alone", "model_bits"),
    ("contexts and matches alone", "context_bits"),
)


def text_report(found: Inspection, name: str) -> str:
    """Return the summary for a terminal."""
    lines = [f"{name}: {found.size} bytes, {len(found.tokens)} tokens, {found.lane_count} lanes"]
    for title, size in _sizes(found):
        lines.append(f"  {title:28}{size:>10.0f} bytes  {8 * size / found.size:.3f} bits/byte")
    lines.append(f"  {_ends(found)}")
    lines.append("  costliest passages:")
    lines += [f"    {passage.bits:6.0f} bits  {_quoted(passage.text)}" for passage in found.costliest(COSTLY)]
    return "\n".join(lines) + "\n"


def html_report(found: Inspection, name: str) -> str:
    """Return the page."""
    template = Template((Path(__file__).parent / "report.html").read_text(encoding="utf-8"))
    own = found.total("bits")
    rows = [
        f"<tr{' class=own' if title == 'llmzip' else ''}><td>{title}</td><td>{size:,.0f}</td>"
        f"<td>{8 * size / found.size:.3f}</td></tr>"
        for title, size in _sizes(found)
    ]
    costliest = [
        f'<li><a href="#text" data-token="{passage.first}">{html.escape(_quoted(passage.text))}</a> '
        f'<span class="faint">{passage.bits:.0f} bits</span></li>'
        for passage in found.costliest(COSTLY)
    ]
    names = [f"below {COLOURS[0]}", *(f"{bits} bits" for bits in COLOURS)]
    plot, width = _plot(found)
    return template.substitute(
        title=html.escape(name),
        summary=f"{found.size:,} bytes of text take {own / 8:,.0f} bytes: {own / found.size:.3f} bits per byte, "
        f"in {len(found.tokens):,} tokens.",
        rows="\n".join(rows),
        ends=html.escape(_ends(found)),
        plot=plot,
        bin=f"{width:,.0f}",
        lanes=f"The text was coded in {found.lane_count} parts at once, each of which starts cold."
        if found.lane_count > 1
        else "",
        costliest="\n".join(costliest),
        scale="".join(f'<span class="c{i}">{name}</span>' for i, name in enumerate(names)),
        text="".join(f'<b class="c{_colour(token)}">{_shown(token.text)}</b>' for token in found.tokens),
        # No "</script>" may end the data early.
        data=json.dumps([_row(token) for token in found.tokens], ensure_ascii=False, separators=(",", ":")).replace(
            "<", "\\u003c"
        ),
    )


def _sizes(found: Inspection) -> list[tuple[str, float]]:
    """Return what each coder makes of the text, in bytes, the smallest first."""
    sizes = [(title, found.total(kind) / 8) for title, kind in CODERS]
    return sorted([*sizes, ("xz -9e", float(found.xz_bytes))], key=lambda row: row[1])


def _ends(found: Inspection) -> str:
    share = found.total("end_bits") / max(found.total("bits"), 1e-9)
    return f"Of all bits, {share:.1%} tell where tokens end."


def _row(token: Token) -> list[object]:
    """Return what the page's script wants to know of a token."""
    costs = [round(bits, 2) for bits in (token.bits, token.model_bits, token.context_bits)]
    guesses = [[_text(guess.text), round(guess.probability, 4)] for guess in token.guesses]
    contributions = [round(token.contributions[predictor], 2) for predictor in ("model", "contexts", "matches")]
    return [_text(token.text), *costs, guesses, _text(token.match), token.match_length, contributions]


def _text(data: bytes) -> str:
    """Return bytes as text; those that are no characters by themselves as escapes."""
    return data.decode("utf-8", "backslashreplace")


def _quoted(data: bytes) -> str:
    """Return bytes as text in one line."""
    text = _text(data)
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _shown(data: bytes) -> str:
    """Return a token as HTML: what is invisible is a dot, and line ends are seen as well."""
    text = "".join(c if c.isprintable() or c in "\n\t" else "·" for c in _text(data))
    return html.escape(text).replace("\n", "↵\n")


def _colour(token: Token) -> int:
    return sum(token.bits >= least for least in COLOURS)


def _plot(found: Inspection) -> tuple[str, float]:
    """Return bits per byte along the text as SVG, and the bytes of each of its steps."""
    starts = np.array([0, *accumulate(len(token.text) for token in found.tokens)], np.float64)
    sums = np.array([0, *accumulate(token.bits for token in found.tokens)], np.float64)
    edges = np.linspace(0, found.size, min(BINS, max(1, found.size // 40)) + 1)
    at = np.interp(edges, starts, sums)
    local, whole = np.diff(at) / np.diff(edges), at[1:] / edges[1:]
    top = max(1.0, float(np.ceil(max(local.max(), whole.max()))))

    def x(byte: float) -> float:
        return LEFT + (WIDTH - LEFT - 8) * byte / found.size

    def y(bits: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 8) * bits / top

    middles = (edges[1:] + edges[:-1]) / 2
    solid = " ".join(f"{x(m):.1f},{y(v):.1f}" for m, v in zip(middles, local, strict=True))
    dashed = " ".join(f"{x(e):.1f},{y(v):.1f}" for e, v in zip(edges[1:], whole, strict=True))
    marks = [
        f'<line x1="{LEFT}" x2="{WIDTH - 8}" y1="{y(bits):.1f}" y2="{y(bits):.1f}" stroke="var(--line)"/>'
        f'<text x="{LEFT - 6}" y="{y(bits) + 4:.1f}" text-anchor="end">{bits:g}</text>'
        for bits in np.arange(0, top + 0.1, max(1, top // 4))
    ]
    ends = [
        f'<text x="{x(byte):.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{byte:,.0f}{unit}</text>'
        for byte, anchor, unit in ((0, "start", ""), (found.size / 2, "middle", ""), (found.size, "end", " bytes"))
    ]
    label = f"Bits per byte along the text, {whole[-1]:.2f} in all, between {local.min():.2f} and {local.max():.2f}"
    lines = (
        f'<polyline points="{solid}" fill="none" stroke="var(--heat)" stroke-width="1.6"/>'
        f'<polyline points="{dashed}" fill="none" stroke="currentColor" stroke-width="1.2" stroke-dasharray="5 4"/>'
    )
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join([*marks, *ends])}{lines}</svg>'
    return svg, float(edges[1])
