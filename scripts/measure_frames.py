"""Measure what the size of frames costs: a long text, and one with far repeats, cut into frames of several sizes.

    python scripts/measure_frames.py FILE... [--bytes 64000000]

The text is the files' beginning, joined and repeated to --bytes; for far repeats, a third of it, three times, where
each copy lacks other lines. Frames are coded without a language model, which is what sees far repeats.
"""

from __future__ import annotations

import argparse
import lzma
import random
from pathlib import Path

import numba
import numpy as np

from llmzip.coding.byte_coder import ByteCoder
from llmzip.mixing import layout
from llmzip.model import registry

SIZES = (1, 4, 16, 32, 64)  # MiB
MISSING = 0.02  # of the lines of each copy


def repeated(text: bytes, seed: int) -> bytes:
    """Return a third of `text` three times, each time with other lines missing."""
    rng, lines = random.Random(seed), text[: len(text) // 3].splitlines(keepends=True)
    return b"".join(line for _ in range(3) for line in lines if rng.random() >= MISSING)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--bytes", type=int, default=64_000_000)
    args = parser.parse_args()
    share = args.bytes // len(args.files)
    plain = b"".join(path.read_bytes()[:share] for path in args.files)
    texts = {"plain": plain, "far repeats": repeated(plain, 1)}
    coder = ByteCoder(registry.initial_state_for_bytes()[0])
    print(f"numba {numba.__version__}, numpy {np.__version__}; bytes of the payloads, without a language model")
    names = [f"{name}, {len(text):,}" for name, text in texts.items()]
    print(f"| frame, MiB | memory to decompress, MB | {' | '.join(names)} |\n|---|---|{'---|' * len(texts)}")
    for size in SIZES:
        step = size << 20
        need = layout.needed(min(step, args.bytes), model=0) / 1e6
        sums = [
            sum(len(coder.encode(t[i : i + step]) or t[i : i + step]) for i in range(0, len(t), step))
            for t in texts.values()
        ]
        print(f"| {size} | {need:.0f} | {' | '.join(f'{total:,}' for total in sums)} |", flush=True)
    sizes = [len(lzma.compress(t, preset=9 | lzma.PRESET_EXTREME)) for t in texts.values()]
    print(f"| xz -9e | | {' | '.join(f'{size:,}' for size in sizes)} |")


if __name__ == "__main__":
    main()
