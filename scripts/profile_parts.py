"""Measure where the time goes, part by part, on this machine.

    python scripts/profile_parts.py [--bytes N] FILE

Prints Markdown tables: milliseconds of a start, and processor time per byte of each part of coding, with one thread.
Measure on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from llmzip.api.frames import byte_coder
from llmzip.coding import lanes, range_coder
from llmzip.coding.token_coder import TokenCoder
from llmzip.model import file as model_file
from llmzip.model import registry
from llmzip.network.head import Prediction
from llmzip.network.packed import KERNELS
from llmzip.tools import machine

ROUNDS = 3
STEPS = 64  # of the network at a time
COMPRESS = ("-m", "llmzip", "compress", "-fq", "-m")
DECOMPRESS = ("-m", "llmzip", "decompress", "-fq")
SHORT = b"A text of some words.\n" * 90  # 2 KB


def fastest(action: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """Return the seconds of the fastest of a few runs."""
    found = []
    for _ in range(ROUNDS):
        start = clock()
        action()
        found.append(clock() - start)
    return min(found)


def command(*args: str) -> float:
    """Return the wall time of a command in seconds, the fastest of a few runs."""
    return fastest(lambda: subprocess.run([sys.executable, *args], check=True), time.perf_counter)


def print_starts() -> None:
    """Print what a start consists of."""
    path = registry.locate("default")
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text"
        text.write_bytes(SHORT)
        rows = {
            "Python alone": command("-c", "pass"),
            "Python and numba": command("-c", "import numba"),
            "with the package's kernels": command("-c", "import llmzip.api.stream"),
            "`llmzip compress -m none` of 2 KB": command(*COMPRESS, "none", str(text)),
            "`llmzip decompress` of it": command(*DECOMPRESS, f"{text}.lz"),
            "`llmzip compress -m default` of 2 KB": command(
                "-m", "llmzip", "compress", "-fq", "-m", "default", str(text)
            ),
            "`llmzip decompress` of that": command(*DECOMPRESS, f"{text}.lz"),
            "of these: reading the model": fastest(lambda: model_file.read(path), time.perf_counter),
        }
    print("| start | ms |\n|---|---|")
    for name, seconds in rows.items():
        print(f"| {name} | {1000 * seconds:.0f} |")


def predictions_of(token_coder: TokenCoder, grid: np.ndarray) -> list[Prediction]:
    """Run the network over a grid, some steps at a time."""
    session = token_coder.session(grid.shape[1])
    starts = range(0, len(grid), STEPS)
    return [session.run(lanes.inputs_of(grid, token_coder.bos, at, STEPS)) for at in starts]


def coding_alone(token_coder: TokenCoder, grid: np.ndarray, predictions: list[Prediction]) -> Callable[[], None]:
    """Return what codes a grid with the network's predictions given."""

    def code() -> None:
        frame = token_coder.begin_frame(token_coder.lane_bytes(grid))
        coder, at = range_coder.new_encoder(), 0
        out = np.empty(8 * grid.size + 1000, np.uint8)
        for prediction in predictions:
            part = grid[at : at + len(prediction.scale)]
            frame.encode(part, prediction, coder, out)
            at += len(part)

    return code


def print_parts(data: bytes) -> None:
    """Print what coding consists of: both directions, with each matmul backend of our own that runs here."""
    plain = byte_coder()[0]
    payload = plain.encode(data)
    if payload is None:
        raise SystemExit("the text cannot be made smaller")
    rows = [("none", "encode", fastest(lambda: plain.encode(data)))]
    rows.append(("none", "decode", fastest(lambda: plain.decode(payload, len(data)))))
    model = registry.load()
    for backend in KERNELS:
        try:
            token_coder = TokenCoder(model, threads=1, backend=backend)
            coded = token_coder.encode(data)
        except Exception as error:  # a backend that this processor lacks
            print(f"backend {backend}: {error}", file=sys.stderr)
            continue
        if coded is None:
            raise SystemExit("the text cannot be made smaller")
        grid = token_coder.grid(data)
        predict = functools.partial(predictions_of, token_coder, grid)
        rows += [
            (backend, "tokenizer", fastest(lambda t=token_coder: t.grid(data))),
            (backend, "network, whole segments", fastest(predict)),
            (backend, "head, contexts, mixer, range coder", fastest(coding_alone(token_coder, grid, predict()))),
            (backend, "encode, all", fastest(lambda t=token_coder: t.encode(data))),
            (backend, "decode, all", fastest(lambda t=token_coder, c=coded: t.decode(c.payload, c.lane_bytes))),
        ]
    print("\n| level or backend | part | microseconds per byte | KB/s |\n|---|---|---|---|")
    for name, part, seconds in rows:
        print(f"| {name} | {part} | {1e6 * seconds / len(data):.2f} | {len(data) / 1000 / seconds:.0f} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--bytes", type=int, default=300_000)
    args = parser.parse_args()
    data = args.file.read_bytes()[: args.bytes]
    print(f"{machine.processor()}; {machine.versions()}; {args.file.name}, {len(data)} bytes\n")
    print_starts()
    print_parts(data)


if __name__ == "__main__":
    main()
