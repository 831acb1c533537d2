"""Measure what lanes cost in bytes and gain in speed, for files and prefixes of files.

    python scripts/measure_lanes.py FILE[:BYTES]...

Prints a Markdown table: bytes of payload, KB/s coding and decoding, by number of lanes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from llmzip.coding.token_coder import TokenCoder
from llmzip.model import registry

LANES = (1, 2, 4, 8, 16, 32, 64)


def main() -> None:
    """Measure the files named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE[:BYTES]")
    args = parser.parse_args()
    token_coder = TokenCoder(registry.load(), threads=2)
    token_coder.decode((warm := token_coder.encode(b"warm up " * 400, capacity=9999)).payload, warm.lane_bytes)
    print("| file | bytes | " + " | ".join(f"{n} lanes" for n in LANES) + " |")
    print("|---|---|" + "---|" * len(LANES))
    for argument in args.files:
        name, _, limit = argument.partition(":")
        data = Path(name).read_bytes()[: int(limit) if limit else None]
        cells = []
        for count in LANES:
            start = time.perf_counter()
            coded = token_coder.encode(data, lane_count=count)
            middle = time.perf_counter()
            if token_coder.decode(coded.payload, coded.lane_bytes) != data:
                raise SystemExit(f"{name} is not restored with {count} lanes")
            end = time.perf_counter()
            rates = f"{len(data) / 1000 / (middle - start):.0f} / {len(data) / 1000 / (end - middle):.0f}"
            cells.append(f"{len(coded.payload)}<br>{rates}")
        print(f"| {Path(name).name} | {len(data)} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
