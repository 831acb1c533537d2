"""Convert named files: where the output goes, what is refused, progress, removal of the source."""

from __future__ import annotations

import math
import os
import stat
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO, cast

import click

import llmzip
from llmzip.atomic_output import check_target, descriptor_of, output_file, standard_output
from llmzip.cli.progress_bar import on_terminal, progress_bar
from llmzip.cli.source import STANDARD, open_source, printable
from llmzip.coding.progress import Progress
from llmzip.container.format import MAGIC, MAX_HEAD
from llmzip.container.reader import check_start, scan
from llmzip.errors import FileError, HardwareError, LlmzipError, SalvageError
from llmzip.model import registry
from llmzip.threads import usable_cores

SUFFIX = ".lz"
BYTES_PER_MINUTE = 90_000  # that a published model compresses in a thread, about


@dataclass(frozen=True, kw_only=True)
class Conversion(ABC):
    """The options that both directions share."""

    output: str | None = None  # file name
    stdout: bool = False
    force: bool = False
    keep: bool = False
    remove: bool = False
    quiet: bool = False
    verbose: bool = False
    no_progress: bool = False
    recursive: bool = False
    model: str | None = None
    threads: int = 0
    jobs: int = 1

    kernels = "*"  # names of the largest that are needed, see llmzip.jit.compiled_before
    archive_in = False
    archive_out = False
    writes = True  # to a name derived from the input's, unless options name another
    memory_hint = ""

    @property
    def verifies(self) -> bool:
        """Return whether the output is read again before it gets its name."""
        return False

    @abstractmethod
    def derive(self, name: str) -> str:
        """Return the name of the output for that of the input; raises FileError if there is none."""

    @abstractmethod
    def wanted(self, path: str) -> bool:
        """Return whether a file found in a folder is to be converted."""

    @abstractmethod
    def check(self, name: str, head: bytes) -> None:
        """Raise LlmzipError for a file that begins with `head` and need not be tried."""

    @abstractmethod
    def total(self, source: BinaryIO) -> int | None:
        """Return the bytes of text that will be converted, None if unknown."""

    @abstractmethod
    def convert(self, source: BinaryIO, destination: BinaryIO, progress: Progress | None) -> None:
        """Convert `source` to `destination`."""

    def conflict(self, count: int) -> str | None:
        """Return why these options cannot be used together for `count` files, None if they can."""
        if self.output is not None and self.stdout:
            return "-o and -c cannot be used together"
        if self.output == "":
            return "-o needs the name of a file"
        if self.output and count > 1:
            return "-o takes one file"
        if self.output and self.output != STANDARD and self.recursive:
            return "-o FILE cannot be used with -r"
        if self.quiet and self.verbose:
            return "-q and -v cannot be used together"
        if self.remove and self._standard_output:
            return "--rm cannot be used with standard output"
        if self.verifies and self._standard_output:
            return "--verify cannot be used with standard output"
        if self.jobs != 1 and self._standard_output:
            return "-j cannot be used with standard output"
        if self.remove and self.keep:
            return "--rm and -k cannot be used together"
        return None

    def run(self, name: str) -> None:
        """Convert one file, all or nothing; SalvageError means that there is an output nevertheless."""
        loss: SalvageError | None = None
        special = self.stdout or self.output is not None or not self.writes
        if self.remove and name != STANDARD:
            _check_removable(name)
        started = time.monotonic()
        with open_source(name, archive=self.archive_in, force=self.force, special=special) as source:
            status = os.fstat(source.fileno())
            if stat.S_ISREG(status.st_mode):
                self.check(name, source.peek(MAX_HEAD)[:MAX_HEAD])  # type: ignore[attr-defined]
            target = self._target(name)
            with (
                self._destination(target, status) as destination,
                self._progress(name, source, status, target) as bar,
            ):
                tally = _Tally(destination, bar)
                try:
                    self.convert(source, cast(BinaryIO, tally), tally.progress)
                except SalvageError as error:
                    loss = error
                except MemoryError as error:
                    raise MemoryError(self.memory_hint) from error
                if self.verifies and target is not None:
                    self._verify(destination, bar)
        if loss:
            raise loss
        if self.verbose:
            before = status.st_size if stat.S_ISREG(status.st_mode) else None
            self._tell(name, before, tally, time.monotonic() - started)
        if self.remove and name != STANDARD:
            _remove(name, status)

    @property
    def files_at_once(self) -> int:
        """Return the number of files that are worked on at the same time."""
        return self.jobs or usable_cores()

    @property
    def _threads(self) -> int:
        """Return the number of threads for one file: its share of the cores, unless the user says otherwise."""
        at_once = self.files_at_once
        return self.threads if self.threads or at_once == 1 else max(1, usable_cores() // at_once)

    @property
    def _standard_output(self) -> bool:
        """Return whether the options name standard output: with /dev/stdout, too."""
        return self.stdout or self.output == STANDARD or (bool(self.output) and descriptor_of(self.output or "") == 1)

    def _target(self, name: str) -> str | None:
        """Return the name of the output file, None for standard output."""
        if self._standard_output or (self.output or name) == STANDARD:
            return None
        return self.output or self.derive(name)

    @contextmanager
    def _destination(self, target: str | None, source: os.stat_result) -> Iterator[BinaryIO]:
        if target is None:
            self._check_standard_output(source)
            with standard_output() as stream:
                yield stream
            return
        regular = check_target(target, source=source, force=self.force)
        if self.remove and not regular:
            raise FileError(target, "is not a new file: --rm would lose the data (leave out --rm)")
        if self.verifies and not regular:
            raise FileError(target, "is not a new file: it cannot be verified (leave out --verify)")
        with output_file(target, source=source, force=self.force) as stream:
            yield stream

    def _check_standard_output(self, source: os.stat_result) -> None:
        if self.archive_out and os.isatty(1) and not self.force:
            raise FileError("(stdout)", "is a terminal, and archives are not text (use -o FILE, or -f)")
        status = os.fstat(1)
        if stat.S_ISREG(status.st_mode) and os.path.samestat(source, status):
            raise FileError("(stdout)", "is the input file: it cannot be the output too (choose another)")

    @contextmanager
    def _progress(
        self, name: str, source: BinaryIO, status: os.stat_result, target: str | None
    ) -> Iterator[Progress | None]:
        """Show what is going on if a person is there to see it; no bar if the text is in its way."""
        if self.quiet or not on_terminal():
            yield None
            return
        from llmzip.jit import compiled_before

        if not compiled_before(self.kernels):
            duration = "a few seconds" if compiled_before("code_*") else "about a quarter of a minute"
            print(f"llmzip: compiling, once ({duration})", file=sys.stderr, flush=True)
        if stat.S_ISREG(status.st_mode):
            warning = self.warning(status.st_size)
            if warning:
                click.echo(f"llmzip: {printable(name)}: {warning}", err=True)
        if self.no_progress or self.files_at_once > 1 or self._in_the_way(target):
            yield None
            return
        total = None
        if stat.S_ISREG(status.st_mode):
            start = source.tell()
            total = self.total(source)
            source.seek(start)
            if total is not None and self.verifies:
                total *= 2
        with progress_bar(printable(name), total) as progress:
            yield progress

    def warning(self, size: int) -> str | None:  # noqa: ARG002 - for subclasses
        """Return what to tell the user about a file of `size` bytes that will take long."""
        return None

    def _verify(self, destination: BinaryIO, bar: Progress | None) -> None:
        """Decompress what has been written to a file; raises HardwareError unless the frames' checksums are right."""
        destination.flush()
        try:
            # Through the descriptor that it was written to: its name could mean another file by now, if it has one.
            with open(os.dup(destination.fileno()), "rb") as written, open(os.devnull, "wb") as nowhere:
                written.seek(0)
                llmzip.decompress_stream(written, nowhere, model=self.model, threads=self._threads, progress=bar)
        except LlmzipError as error:
            raise HardwareError(f"the archive does not restore the file: {error} (see llmzip doctor)") from error

    def _in_the_way(self, target: str | None) -> bool:
        """Return whether the output goes where the bar would be."""
        return target is None and os.isatty(1)

    def _tell(self, name: str, before: int | None, tally: _Tally, seconds: float) -> None:
        """Write a line about a file that is done; `before` is its size if it has one."""
        packed = tally.written if self.archive_out else before
        parts = [f"{tally.text} bytes in {seconds:.1f} s, {tally.text / 1000 / max(seconds, 1e-3):.1f} KB/s"]
        if packed is not None:
            share = f" ({8 * packed / tally.text:.3f} bits/byte)" if tally.text else ""
            parts.insert(0, f"{packed} bytes compressed{share}")
        if sys.stderr is not None:  # else print would take standard output for it
            for problem in _cache_problems():
                click.echo(f"llmzip: {printable(problem)}", err=True)
            click.echo(f"llmzip: {'(stdin)' if name == STANDARD else printable(name)}: {', '.join(parts)}", err=True)


def _cache_problems() -> list[str]:
    """Return, once, what is wrong with the cache of compiled kernels, if they have been used."""
    cache = sys.modules.get("llmzip.kernel_cache")
    problems: list[str] = list(cache.problems) if cache else []
    if cache:
        cache.problems.clear()
    return problems


class _Tally:
    """Pass data and progress on, and count them."""

    def __init__(self, destination: BinaryIO, bar: Progress | None):
        self._write, self._bar = destination.write, bar
        self.written = 0
        self.text = 0  # bytes of text that are done

    def write(self, data: bytes) -> int:
        self.written += len(data)
        return self._write(data)

    def progress(self, size: int) -> None:
        self.text += size
        if self._bar:
            self._bar(size)


@dataclass(frozen=True, kw_only=True)
class Compression(Conversion):
    """Compress files; `verify` decompresses each archive before it gets its name, as removing the source does."""

    verify: bool = False
    frame_size: int | None = None  # bytes

    archive_out = True
    memory_hint = "-m none takes less"

    @property
    def kernels(self) -> str:  # type: ignore[override]
        """Return the name of the encoder's loop."""
        return "encode_bytes" if self.model == registry.NONE else "encode_steps"

    @property
    def verifies(self) -> bool:
        """Return whether the archive is verified: on request, and always before the source is removed."""
        return self.verify or self.remove

    def _target(self, name: str) -> str | None:
        target = super()._target(name)
        if self.verify and target is None:
            raise FileError("(stdout)", "cannot be verified (use -o FILE)")
        return target

    def derive(self, name: str) -> str:
        """Append the suffix."""
        return name + SUFFIX

    def wanted(self, path: str) -> bool:
        """Pass over archives."""
        if not path.endswith(SUFFIX):
            return True
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) != MAGIC

    def check(self, name: str, head: bytes) -> None:
        """Refuse archives."""
        if name.endswith(SUFFIX) and head.startswith(MAGIC) and not self.force:
            raise FileError(name, "is an llmzip archive already (use -f to compress it again)")

    def warning(self, size: int) -> str | None:
        """Return a line about a file that takes a published model more than a minute."""
        minutes = size / (BYTES_PER_MINUTE * (self._threads or usable_cores()))
        if self.model in (None, registry.NONE, registry.DEFAULT) or minutes < 1:
            return None
        with suppress(LlmzipError, OSError):  # compressing will say why
            if registry.load(self.model).published:
                return f"about {math.ceil(minutes)} minutes with this model (-m default takes seconds)"
        return None

    def total(self, source: BinaryIO) -> int | None:
        """Return what is left of the file."""
        start = source.tell()
        return source.seek(0, 2) - start

    def convert(self, source: BinaryIO, destination: BinaryIO, progress: Progress | None) -> None:
        """Compress."""
        if self.model in (None, registry.DEFAULT):
            from llmzip.coding import precompiler

            precompiler.start()
        llmzip.compress_stream(
            source,
            destination,
            model=self.model,
            threads=self._threads,
            frame_size=self.frame_size,
            progress=progress,
        )


@dataclass(frozen=True, kw_only=True)
class Decompression(Conversion):
    """Decompress files; `salvage` goes on after damage."""

    salvage: bool = False
    memlimit: int | None = None  # bytes

    kernels = "decode_*"
    archive_in = True
    memory_hint = "llmzip list shows how much it takes"

    def derive(self, name: str) -> str:
        """Remove the suffix."""
        if not name.endswith(SUFFIX) or os.path.basename(name) == SUFFIX:
            raise FileError(name, f"does not end in {SUFFIX}, so the output has no name (use -o FILE, or -c)")
        return name.removesuffix(SUFFIX)

    def wanted(self, path: str) -> bool:
        """Go by the suffix: an archive may be too damaged to be known by its content."""
        return path.endswith(SUFFIX)

    def check(self, name: str, head: bytes) -> None:  # noqa: ARG002 - see the base class
        """Refuse foreign files, whatever their names."""
        if not self.salvage:
            check_start(head)

    def total(self, source: BinaryIO) -> int | None:
        """Return the sum of the frames' sizes."""
        try:
            return sum(frame.header.size for frame in scan(source))
        except LlmzipError:
            return None  # decompression will say why

    def convert(self, source: BinaryIO, destination: BinaryIO, progress: Progress | None) -> None:
        """Decompress."""
        llmzip.decompress_stream(
            source,
            destination,
            model=self.model,
            threads=self._threads,
            progress=progress,
            keep_going=self.salvage,
            memlimit=self.memlimit,
        )


class Verification(Decompression):
    """Decompress files to nowhere."""

    writes = False

    def _target(self, name: str) -> str | None:  # noqa: ARG002 - see the base class
        return None

    @contextmanager
    def _destination(self, target: str | None, source: os.stat_result) -> Iterator[BinaryIO]:  # noqa: ARG002
        with open(os.devnull, "wb") as nowhere:
            yield nowhere

    def _in_the_way(self, target: str | None) -> bool:  # noqa: ARG002
        return False


def _check_removable(name: str) -> os.stat_result:
    """Return the status of a file that --rm may remove; raises FileError unless it is a regular one itself."""
    status = os.lstat(name)
    if stat.S_ISLNK(status.st_mode):
        raise FileError(name, "is a symbolic link: it is not removed (leave out --rm)")
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):  # folders are refused in other words
        raise FileError(name, "is not a regular file: it is not removed (leave out --rm)")
    return status


def _remove(name: str, status: os.stat_result) -> None:
    """Remove what was read, if it is still what was read."""
    now = _check_removable(name)
    same = os.path.samestat(now, status) and now.st_size == status.st_size
    if not same or (now.st_mtime_ns, now.st_ctime_ns) != (status.st_mtime_ns, status.st_ctime_ns):
        raise FileError(name, "has changed meanwhile: it is not removed (compress it again)")
    os.unlink(name)
