"""Compress files with llmzip and with the classical tools, check every round trip, and write a table.

    python scripts/benchmark.py --out docs/benchmarks.md FILE...

Sizes are bits per byte of the whole archive; speeds are of the whole process, start-up included, best of two runs. Run
it on a quiet machine. The classical tools must be installed.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

TOOLS = {
    "gzip -9": ("gzip -9 -n -c", "gzip -d -c"),
    "bzip2 -9": ("bzip2 -9 -c", "bzip2 -d -c"),
    "xz -9e": ("xz -9e -T1 -c", "xz -d -c"),
    "zstd -19": ("zstd -q -19 -c", "zstd -q -d -c"),
    "llmzip": ("llmzip compress -q -c -f", "llmzip decompress -q -c"),
}
RUNS = 2


def run(command: str, source: Path, target: Path) -> float:
    """Run a filter from `source` to `target` and return its wall-clock seconds."""
    with open(source, "rb") as stdin, open(target, "wb") as stdout:
        start = time.perf_counter()
        subprocess.run(shlex.split(command), stdin=stdin, stdout=stdout, check=True)
        return time.perf_counter() - start


def measure(tool: str, file: Path, folder: Path) -> tuple[float, float, float]:
    """Return bits per byte and KB/s of compressing and decompressing; raises if the round trip fails."""
    compress, decompress = TOOLS[tool]
    packed, back = folder / "packed", folder / "back"
    size = file.stat().st_size
    compressing = min(run(compress, file, packed) for _ in range(RUNS))
    decompressing = min(run(decompress, packed, back) for _ in range(RUNS))
    if back.read_bytes() != file.read_bytes():
        raise SystemExit(f"{tool} does not restore {file}")
    return 8 * packed.stat().st_size / size, size / 1000 / compressing, size / 1000 / decompressing


def cpu_name() -> str:
    """Return the processor's name and flags that matter here."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = next((x.split(":")[1].strip() for x in text.splitlines() if x.startswith("model name")), "")
    flags = [f for f in ("avx2", "avx512_vnni", "avx_vnni") if f" {f}" in text]
    return f"{name or platform.processor()}, {os.cpu_count()} cores, {' '.join(flags)}"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lines = [
        "# Benchmarks",
        "",
        f"- machine: {cpu_name()}",
        f"- versions: llmzip {version('llmzip')}, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("torch", "numba", "numpy")),
        f"- command: `python scripts/benchmark.py {' '.join(f.name for f in args.files)}`",
        "- bits per byte (smaller is better), below it KB/s compressing / decompressing, whole process",
        "",
        "| file | bytes | " + " | ".join(TOOLS) + " |",
        "|---|---|" + "---|" * len(TOOLS),
    ]
    rates: dict[str, list[float]] = {tool: [] for tool in TOOLS}
    with tempfile.TemporaryDirectory() as folder:
        for file in args.files:
            cells = []
            for tool in TOOLS:
                bits, packing, unpacking = measure(tool, file, Path(folder))
                rates[tool].append(bits)
                cells.append(f"{bits:.3f}<br>{packing:.0f} / {unpacking:.0f}")
            lines.append(f"| {file.name} | {file.stat().st_size} | " + " | ".join(cells) + " |")
            print(lines[-1], file=sys.stderr)
    means = [f"{math.exp(sum(map(math.log, r)) / len(r)):.3f}" for r in rates.values()]
    lines.append("| geometric mean | | " + " | ".join(means) + " |")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
    lines += ["", f"Largest process: {peak:.0f} MB."]
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
