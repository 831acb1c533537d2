"""Draw the figures of docs/how-it-works.md with the default model.

python scripts/make_figures.py
"""

from __future__ import annotations

import argparse
import html
from pathlib import Path

from llmzip.coding.byte_coder import ByteCoder
from llmzip.coding.token_coder import TokenCoder
from llmzip.model import registry
from llmzip.tools.inspection import Inspection, inspect

FIGURES = Path(__file__).parents[1] / "docs" / "figures"

# Lewis Carroll, Alice's Adventures in Wonderland, 1865.
PASSAGE = (
    "Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once or "
    "twice she had peeped into the book her sister was reading, but it had no pictures or conversations in it, and "
    "what is the use of a book, thought Alice, without pictures or conversations?"
)
CHARACTER, LINE, WIDTH = 9, 46, 860  # pixels


def tokens_figure(found: Inspection) -> str:
    """Return the passage as boxes, a token each, coloured by its cost in bits, which is below it."""
    boxes, x, y = [], 0, 0
    for token in found.tokens:
        text = token.text.decode("utf-8", "replace")
        wide = CHARACTER * len(text) + 4
        if x + wide > WIDTH:
            x, y = 0, y + LINE
        shade = min(token.bits / 14, 1) * 0.9
        boxes.append(
            f'<rect x="{x}" y="{y}" width="{wide - 2}" height="24" rx="3" fill="#ff7a2f" fill-opacity="{shade:.2f}"/>'
            f'<text x="{x + 1}" y="{y + 17}" xml:space="preserve">{html.escape(text)}</text>'
            f'<text x="{x + wide / 2 - 1}" y="{y + 37}" class="bits">{token.bits:.1f}</text>'
        )
        x += wide
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-10 -10 {WIDTH + 20} {y + LINE + 14}">'
        "<style>text { font: 15px monospace; fill: #1c1b1a } .bits { font-size: 10px; text-anchor: middle; "
        'fill: #6b665f }</style><rect x="-10" y="-10" width="100%" height="100%" fill="#fdfcfa"/>'
        f"{''.join(boxes)}</svg>\n"
    )


def shares_figure(found: Inspection) -> str:
    """Return bars of what each coder makes of the passage."""
    rows = [
        ("llmzip", found.total("bits")),
        ("language model alone", found.total("model_bits")),
        ("contexts and matches alone", found.total("context_bits")),
        ("xz -9e", 8 * found.xz_bytes),
        ("as it is", 8 * found.size),
    ]
    bars = [
        f'<text x="190" y="{24 * i + 16}" text-anchor="end">{name}</text>'
        f'<rect x="200" y="{24 * i + 3}" width="{540 * bits / (8 * found.size):.1f}" height="17" rx="2" '
        f'fill="{"#c2410c" if i == 0 else "#e7b899"}"/>'
        f'<text x="{206 + 540 * bits / (8 * found.size):.1f}" y="{24 * i + 16}">{bits / 8:.0f} bytes</text>'
        for i, (name, bits) in enumerate(rows)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-10 -10 {WIDTH + 20} {24 * len(rows) + 20}">'
        "<style>text { font: 13px system-ui, sans-serif; fill: #1c1b1a }</style>"
        f'<rect x="-10" y="-10" width="100%" height="100%" fill="#fdfcfa"/>{"".join(bars)}</svg>\n'
    )


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    plain = ByteCoder(registry.initial_state_for_bytes()[0])
    passage = inspect(TokenCoder(registry.load()), plain, PASSAGE.encode())
    FIGURES.mkdir(exist_ok=True)
    (FIGURES / "tokens.svg").write_text(tokens_figure(passage))
    (FIGURES / "shares.svg").write_text(shares_figure(passage))
