"""One file of many, on whatever machine: skipped if its output is current, converted all or nothing, never an error."""

from __future__ import annotations

import os
import stat
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Literal

import llmzip
from llmzip.api.remote import is_url, new_file, open_file
from llmzip.batch.failure import explanation, passes, subject
from llmzip.batch.names import SUFFIX
from llmzip.batch.plan import Item, make_folder
from llmzip.batch.report import Outcome
from llmzip.batch.resume import is_archive, is_current
from llmzip.coding.progress import Progress
from llmzip.container.format import MAGIC
from llmzip.errors import FileError, HardwareError, LlmzipError


@dataclass(frozen=True, kw_only=True)
class Work:
    """What to do with each file; `threads` for it, and the other options as in :func:`llmzip.compress_stream`.

    With `resume`, outputs that are current stay, and archives that are not are replaced. With `force`, everything is.
    `verify` decompresses each archive before it gets its name.
    """

    kind: Literal["compress", "decompress", "test"]
    model: str | None = None
    threads: int = 1
    frame_size: int | None = None
    memlimit: int | None = None
    force: bool = False
    resume: bool = False
    verify: bool = False

    def may_replace(self, target: str) -> bool:
        """Return whether a file of this name may be overwritten: a text that differs from its archive's may not."""
        return self.force or (self.resume and self.kind == "compress" and is_archive(target))


def convert(item: Item, work: Work) -> Outcome:
    """Do the work on one file."""
    try:
        if work.resume and item.target is not None and is_current(item.source, item.target):
            return Outcome(item.source, "skipped")
        text, archive = _converted(item, work)
    except Exception as error:  # the others get their turn
        return failure(item.source, error)
    return Outcome(item.source, "done", text, archive)


def failure(name: str, error: Exception) -> Outcome:
    """Return the outcome of a file that has failed."""
    if os.environ.get("LLMZIP_DEBUG"):
        traceback.print_exception(error)
    return Outcome(subject(name, error), "failed", error=explanation(error), passing=passes(error))


def _converted(item: Item, work: Work) -> tuple[int, int]:
    """Convert a file and return the bytes of its content and of its archive."""
    text = 0

    def progress(size: int) -> None:
        nonlocal text
        text += size

    with open_regular(item.source) as source:
        found = None if is_url(item.source) else os.fstat(source.fileno())
        with destination(item.target, found, work) as out:
            if work.kind == "compress":
                check_no_archive(item.source, source.peek(len(MAGIC)), force=work.force)  # type: ignore[attr-defined]
                llmzip.compress_stream(
                    source, out, model=work.model, threads=work.threads, frame_size=work.frame_size, progress=progress
                )
                archive = out.tell()
                if work.verify:
                    verify(out, model=work.model, threads=work.threads)
            else:
                llmzip.decompress_stream(
                    source, out, model=work.model, threads=work.threads, memlimit=work.memlimit, progress=progress
                )
                archive = source.tell()
    return text, archive


@contextmanager
def open_regular(name: str) -> Iterator[BinaryIO]:
    """Open a URL or a regular file; a pipe would be waited for without end."""
    if not is_url(name):
        mode = os.stat(name).st_mode
        if stat.S_ISDIR(mode):
            raise FileError(name, "is a directory (-r takes its files)")
        if not stat.S_ISREG(mode):
            raise FileError(name, "is not a regular file")
    with open_file(name) as file:
        yield file


@contextmanager
def destination(target: str | None, source: os.stat_result | None, work: Work) -> Iterator[BinaryIO]:
    """Open the output, which gets its name at the end; permissions and times are those of a local `source`."""
    if target is None:
        with open(os.devnull, "wb") as nowhere:
            yield nowhere
        return
    make_folder(target)
    with new_file(target, source=source, force=work.may_replace(target)) as out:
        yield out


def check_no_archive(name: str, head: bytes, *, force: bool) -> None:
    """Raise FileError for an archive that is to be compressed, unless it is to be by force."""
    if name.endswith(SUFFIX) and head.startswith(MAGIC) and not force:
        raise FileError(name, "is an llmzip archive already (use -f to compress it again)")


def verify(archive: BinaryIO, *, model: str | None, threads: int, progress: Progress | None = None) -> None:
    """Decompress what has been written to a local file; raises HardwareError unless all checksums are right."""
    archive.flush()
    try:
        # Through the descriptor that it was written to: its name could mean another file by now, if it has one.
        with open(os.dup(archive.fileno()), "rb") as written, open(os.devnull, "wb") as nowhere:
            written.seek(0)
            llmzip.decompress_stream(written, nowhere, model=model, threads=threads, progress=progress)
    except LlmzipError as error:
        raise HardwareError(f"the archive does not restore the file: {error} (see llmzip doctor)") from error
