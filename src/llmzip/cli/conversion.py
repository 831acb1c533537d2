"""Convert named files: where the output goes, what is refused, progress, removal of the source."""

from __future__ import annotations

import os
import stat
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

import click

from llmzip.api.remote import is_url, new_file, without_secrets
from llmzip.atomic_output import check_target, descriptor_of, standard_output
from llmzip.batch.task import Work, verify
from llmzip.cli.progress_bar import on_terminal, progress_bar
from llmzip.cli.source import STANDARD, open_source, printable
from llmzip.coding.progress import Progress
from llmzip.container.format import MAX_HEAD
from llmzip.errors import FileError, SalvageError
from llmzip.threads import usable_cores


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

    @abstractmethod
    def work(self, *, resume: bool) -> Work:
        """Return what a cluster is to do with each of many files."""

    def run(self, name: str, target: str | None = None) -> tuple[int, int]:
        """Convert one file, all or nothing; return the bytes of its content and of its archive.

        The output is `target`, if the options do not say. SalvageError means that there is an output nevertheless.
        """
        loss: SalvageError | None = None
        special = self.stdout or self.output is not None or not self.writes
        if self.remove and name != STANDARD:
            _check_removable(name)
        started = time.monotonic()
        with open_source(name, archive=self.archive_in, force=self.force, special=special) as source:
            status = None if is_url(name) else os.fstat(source.fileno())
            size = _size(source, status)
            if size is not None:
                self.check(name, source.peek(MAX_HEAD)[:MAX_HEAD])  # type: ignore[attr-defined]
            target = target or self._target(name)
            with (
                self._destination(target, status) as destination,
                self._progress(name, source, size, target) as bar,
            ):
                tally = _Tally(destination, bar)
                try:
                    self.convert(source, cast(BinaryIO, tally), tally.progress)
                except SalvageError as error:
                    loss = error
                except MemoryError as error:
                    raise MemoryError(self.memory_hint) from error
                if self.verifies and target is not None:
                    verify(destination, model=self.model, threads=self._threads, progress=bar)
        if loss:
            raise loss
        if self.verbose:
            self._tell(name, size, tally, time.monotonic() - started)
        if self.remove and status and name != STANDARD:
            _remove(name, status)
        return tally.text, tally.written if self.archive_out else size or 0

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
    def _destination(self, target: str | None, source: os.stat_result | None) -> Iterator[BinaryIO]:
        if target is None:
            self._check_standard_output(source)
            with standard_output() as stream:
                yield stream
            return
        regular = is_url(target) or check_target(target, source=source, force=self.force)
        if self.remove and not regular:
            raise FileError(target, "is not a new file: --rm would lose the data (leave out --rm)")
        if self.verifies and not regular:
            raise FileError(target, "is not a new file: it cannot be verified (leave out --verify)")
        with new_file(target, source=source, force=self.force) as stream:
            yield stream

    def _check_standard_output(self, source: os.stat_result | None) -> None:
        if self.archive_out and os.isatty(1) and not self.force:
            raise FileError("(stdout)", "is a terminal, and archives are not text (use -o FILE, or -f)")
        status = os.fstat(1)
        if source and stat.S_ISREG(status.st_mode) and os.path.samestat(source, status):
            raise FileError("(stdout)", "is the input file: it cannot be the output too (choose another)")

    @contextmanager
    def _progress(self, name: str, source: BinaryIO, size: int | None, target: str | None) -> Iterator[Progress | None]:
        """Show what is going on if a person is there to see it; no bar if the text is in its way."""
        if self.quiet or not on_terminal():
            yield None
            return
        from llmzip.jit import compiled_before

        if not compiled_before(self.kernels):
            duration = "a few seconds" if compiled_before("code_*") else "about a quarter of a minute"
            print(f"llmzip: compiling, once ({duration})", file=sys.stderr, flush=True)
        shown = printable(without_secrets(name))
        if size is not None:
            warning = self.warning(size)
            if warning:
                click.echo(f"llmzip: {shown}: {warning}", err=True)
        if self.no_progress or self.files_at_once > 1 or self._in_the_way(target):
            yield None
            return
        total = None
        if size is not None:
            start = source.tell()
            total = self.total(source)
            source.seek(start)
            if total is not None and self.verifies:
                total *= 2
        with progress_bar(shown, total) as progress:
            yield progress

    def warning(self, size: int) -> str | None:  # noqa: ARG002 - for subclasses
        """Return what to tell the user about a file of `size` bytes that will take long."""
        return None

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
            shown = "(stdin)" if name == STANDARD else printable(without_secrets(name))
            click.echo(f"llmzip: {shown}: {', '.join(parts)}", err=True)


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


def _size(source: BinaryIO, status: os.stat_result | None) -> int | None:
    """Return the size of a regular file or of what is behind a URL, None for anything else and if it is not known."""
    if status:
        return status.st_size if stat.S_ISREG(status.st_mode) else None
    if not source.seekable():
        return None
    size = source.seek(0, os.SEEK_END)
    source.seek(0)
    return size


def _check_removable(name: str) -> os.stat_result:
    """Return the status of a file that --rm may remove; raises FileError unless it is a regular one itself."""
    if is_url(name):
        raise FileError(without_secrets(name), "is a URL: it is not removed (leave out --rm)")
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
