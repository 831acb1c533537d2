"""Compress files with llmzip and with the tools that are installed, and check every round trip.

Each measurement is of a whole process, start-up included; short ones are repeated, and the fastest counts.
"""

from __future__ import annotations

import math
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmzip.errors import FileError, LlmzipError

REPEAT_BELOW = 3.0  # seconds
REPEATS = 3
POLL = 0.001, 0.02  # seconds between two looks at a process's memory, at first and later


@dataclass(frozen=True)
class Tool:
    """A compressor and the commands that call it.

    The commands read standard input and write standard output, unless they name their files: `{source}`,
    `{packed}`, `{back}`.
    """

    name: str
    pack: str
    unpack: str
    suffix: str = ""

    @property
    def installed(self) -> bool:
        """Return whether its program is installed."""
        return shutil.which(shlex.split(self.pack)[0]) is not None


OTHERS = (
    Tool("gzip -9", "gzip -9 -n -c", "gzip -d -c"),
    Tool("bzip2 -9", "bzip2 -9 -c", "bzip2 -d -c"),
    Tool("xz -9e", "xz -9e -T1 -c", "xz -d -c"),
    Tool("zstd -19", "zstd -q -19 -c", "zstd -q -d -c"),
    Tool("brotli -q 11", "brotli -q 11 -w 24 -c", "brotli -d -c"),
    Tool("7z -mx=9", "7z a -mx=9 -bd -y {packed} {source}", "7z e -so -bd {packed}", ".7z"),
    Tool("7z PPMd", "7z a -m0=ppmd:o=32:mem=256m -bd -y {packed} {source}", "7z e -so -bd {packed}", ".7z"),
    Tool("zpaq -m5", "zpaq a {packed} {source} -m5", "zpaq x {packed} {source} -to {back} -f", ".zpaq"),
)


def llmzip_tool(model: str | None = None, threads: int = 0) -> Tool:
    """Return llmzip with a model, or its default."""
    program = f"{shlex.quote(sys.executable)} -m llmzip"
    options = f"-q -c -T {threads}"
    chosen = f" -m {shlex.quote(model)}" if model else ""
    name = f"llmzip {Path(model).stem}" if model else "llmzip"
    return Tool(name, f"{program} compress -f {options}{chosen}", f"{program} decompress {options}{chosen}")


@dataclass(frozen=True)
class Result:
    """What one tool did with one file, or with several together; memory in MB is the largest."""

    file: str
    tool: str
    size: int
    packed: int
    pack_seconds: float
    unpack_seconds: float
    pack_memory: float
    unpack_memory: float

    @property
    def bits(self) -> float:
        """Return bits per byte."""
        return 8 * self.packed / self.size

    @property
    def pack_speed(self) -> float:
        """Return KB of content per second of compressing."""
        return self.size / 1000 / self.pack_seconds

    @property
    def unpack_speed(self) -> float:
        """Return KB of content per second of decompressing."""
        return self.size / 1000 / self.unpack_seconds

    def as_dict(self) -> dict[str, Any]:
        """Return everything that JSON output holds."""
        return {
            **{key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(self).items()},
            "bits_per_byte": round(self.bits, 4),
            "pack_kb_per_s": round(self.pack_speed, 1),
            "unpack_kb_per_s": round(self.unpack_speed, 1),
        }


def bench(files: Sequence[str], tools: Sequence[Tool], tell: Callable[[str], None]) -> Iterator[Result]:
    """Measure every tool with every file; `tell` is called with what comes next."""
    for name in files:
        if not os.path.getsize(name):
            raise FileError(name, "is empty: there is nothing to measure")
    with tempfile.TemporaryDirectory(prefix="llmzip-bench-") as folder:
        for name in files:
            source = Path(folder, "source")
            shutil.copyfile(name, source)
            for tool in tools:
                tell(f"{name}: {tool.name}")
                yield _measure(tool, name, source)


def warm_up(tool: Tool) -> None:
    """Run a tool once, so that what it does only once is done: llmzip compiles its kernels."""
    with tempfile.TemporaryDirectory(prefix="llmzip-bench-") as folder:
        source = Path(folder, "source")
        source.write_text("All happy families are alike.\n" * 200)
        _measure(tool, "a sample", source)


def _measure(tool: Tool, name: str, source: Path) -> Result:
    """Compress and decompress one file; raises LlmzipError if it does not come back."""
    packed, back = source.with_name("packed" + tool.suffix), source.with_name("back")
    names = {"source": str(source), "packed": str(packed), "back": str(back)}
    pack_seconds, pack_memory = _best(tool, tool.pack, names, source, packed)
    unpack_seconds, unpack_memory = _best(tool, tool.unpack, names, packed, back)
    if back.read_bytes() != source.read_bytes():
        raise LlmzipError(f"{tool.name} does not restore {name}")
    size = source.stat().st_size
    return Result(
        name, tool.name, size, packed.stat().st_size, pack_seconds, unpack_seconds, pack_memory, unpack_memory
    )


def _best(tool: Tool, command: str, names: dict[str, str], source: Path, target: Path) -> tuple[float, float]:
    """Return the least seconds and the most memory of several runs, of one if that takes long."""
    runs: list[tuple[float, float]] = []
    while not runs or (len(runs) < REPEATS and runs[0][0] < REPEAT_BELOW):
        target.unlink(missing_ok=True)
        runs.append(_run(tool, [word.format(**names) for word in shlex.split(command)], source, target))
    return min(seconds for seconds, _ in runs), max(memory for _, memory in runs)


def _run(tool: Tool, command: list[str], source: Path, target: Path) -> tuple[float, float]:
    """Run a program and return its seconds and its memory in MB."""
    writes_itself = str(target) in command
    with open(source, "rb") as stdin, open(os.devnull if writes_itself else target, "wb") as stdout:
        start = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603 - the tools above
            command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, cwd=source.parent
        )
        watch = None
        try:  # a signal may raise anywhere from here on
            watch = _MemoryWatch(process.pid)
            _, errors = process.communicate()
            seconds = time.perf_counter() - start
        finally:
            process.kill()
            if watch:
                watch.stop()
    if process.returncode:
        lines = errors.decode(errors="replace").strip().splitlines()
        raise LlmzipError(f"{tool.name} failed: {lines[-1] if lines else f'exit code {process.returncode}'}")
    return seconds, watch.most


class _MemoryWatch:
    """A watch on a process's memory while it runs.

    The system's account of ended processes is no help: it counts the Python that started them.
    """

    def __init__(self, pid: int):
        self.most = 0.0  # MB; stays 0 where there is no /proc
        self._status, self._ended = f"/proc/{pid}/status", threading.Event()
        self._look()
        self._thread = threading.Thread(target=self._run, daemon=True)  # never keeps a stopped program alive
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        looks = 0
        while not self._ended.wait(POLL[looks > 50]):
            looks += 1
            self._look()

    def _look(self) -> None:
        with suppress(OSError), open(self._status, encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    self.most = max(self.most, int(line.split()[1]) / 1024)


def totals(results: Sequence[Result]) -> list[Result]:
    """Return for each tool what it did with all files together."""
    by_tool: dict[str, list[Result]] = {}
    for result in results:
        by_tool.setdefault(result.tool, []).append(result)
    return [
        Result(
            f"all {len(rows)} files",
            tool,
            sum(row.size for row in rows),
            sum(row.packed for row in rows),
            math.fsum(row.pack_seconds for row in rows),
            math.fsum(row.unpack_seconds for row in rows),
            max(row.pack_memory for row in rows),
            max(row.unpack_memory for row in rows),
        )
        for tool, rows in by_tool.items()
    ]


def table(results: Sequence[Result]) -> str:
    """Return a Markdown table that is aligned for the terminal as well.

    Memory below 1 MB is that of a program that ended before it could be seen.
    """
    head = ["file", "tool", "bytes", "bits/byte", "compress KB/s", "decompress KB/s", "memory MB"]
    rows = [
        [
            row.file,
            row.tool,
            str(row.packed),
            f"{row.bits:.3f}",
            f"{row.pack_speed:,.1f}",
            f"{row.unpack_speed:,.1f}",
            " / ".join(f"{memory:.0f}" if memory >= 1 else "?" for memory in (row.pack_memory, row.unpack_memory)),
        ]
        for row in results
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    rule = [("-" * width if i < 2 else "-" * (width - 1) + ":") for i, width in enumerate(widths)]
    lines = [
        [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in (head, rule, *rows)
    ]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
