"""What the import of a model has cost: bits per byte of its published floats and of its exact integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from llmzip.coding.lanes import cut, inputs_of
from llmzip.coding.token_coder import TokenCoder
from llmzip.errors import ModelError
from llmzip.model.file import Model
from llmzip.pretrained.convert import vocabulary
from llmzip.pretrained.reference import Reference, groups_of_lanes
from llmzip.pretrained.source import Source
from llmzip.tools.token_probabilities import bits_of

TOKENS_PER_LANE = 512  # of those that networks are compared with: no window moves on

NOT_MEASURED = "Not measured (`llmzip models import --measure FILE` does).\n"


def table(source: Source, model: Model, files: list[Path], threads: int) -> str:
    """Return a Markdown table of what `files` take, each a domain: networks alone, float and exact, and archives."""
    if not files:
        return NOT_MEASURED
    coder = TokenCoder(model, threads=threads)
    lines = [
        f"Bits per byte: the networks alone in passages of {TOKENS_PER_LANE} tokens, and whole archives.",
        "",
        "| text | bytes | float network | exact network | archive |",
        "|---|---|---|---|---|",
    ]
    for path in files:
        data = path.read_bytes()
        if not data:
            raise ModelError(f"{path} is empty: nothing to measure")
        floating, exact = compare(source, coder, data)
        coded = coder.encode(data, capacity=2 * len(data) + 64)
        archive = 8 * len(coded.payload) / len(data) if coded else 8.0
        lines.append(f"| {path.name} | {len(data)} | {floating:.4f} | {exact:.4f} | {archive:.4f} |")
    return "\n".join(lines) + "\n"


def compare(source: Source, coder: TokenCoder, data: bytes) -> tuple[float, float]:
    """Return bits per byte of `data`, cut into passages, by the float network and by the exact one."""
    tokens = coder.tokenizer.encode(data)
    grid = cut(tokens, -(-len(tokens) // TOKENS_PER_LANE))
    inputs = inputs_of(grid, coder.bos)
    _, rows, _ = vocabulary(source)
    known = np.append(rows, source.start)  # -1 for bytes that the source does not know: they cost nothing there
    targets = np.where(grid >= 0, known[grid], -1)
    floating = Reference(source, len(grid)).bits(np.maximum(known[inputs], 0), targets)
    exact = sum(bits_of(coder, grid[:, part], targets[:, part] >= 0) for part in groups_of_lanes(grid.shape[1]))
    return floating / len(data), exact / len(data)
