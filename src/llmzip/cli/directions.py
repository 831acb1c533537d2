"""The directions of conversion: compression, decompression, and decompression to nowhere."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import llmzip
from llmzip.api.remote import is_url
from llmzip.batch.names import SUFFIX, archive_name, content_name
from llmzip.batch.pace import PER_MINUTE, pace_of
from llmzip.batch.resume import is_archive
from llmzip.batch.task import Work, check_no_archive
from llmzip.cli.conversion import Conversion
from llmzip.coding.progress import Progress
from llmzip.container.reader import check_start, scan
from llmzip.container.small import begins_small
from llmzip.errors import FileError, LlmzipError
from llmzip.model import registry
from llmzip.threads import usable_cores


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

    def work(self, *, resume: bool) -> Work:
        """Return the options of compression."""
        return Work(
            kind="compress",
            model=self.model,
            threads=self.threads or 1,
            frame_size=self.frame_size,
            force=self.force,
            resume=resume,
            verify=self.verify,
        )

    def derive(self, name: str) -> str:
        """Append the suffix."""
        return archive_name(name)

    def wanted(self, path: str) -> bool:
        """Pass over archives; going by the suffix only where looking into every file would take a request."""
        return not path.endswith(SUFFIX) or (not is_url(path) and not is_archive(path))

    def check(self, name: str, head: bytes) -> None:
        """Refuse archives."""
        check_no_archive(name, head, force=self.force)

    def warning(self, size: int) -> str | None:
        """Return a line about a file that takes a published model more than a minute."""
        minutes = size / (PER_MINUTE["published"] * (self._threads or usable_cores()))
        if minutes < 1 or pace_of(self.model) != "published":
            return None
        return f"about {math.ceil(minutes)} minutes with this model (-m default takes seconds)"

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

    def work(self, *, resume: bool) -> Work:
        """Return the options of decompression."""
        return Work(
            kind="decompress" if self.writes else "test",
            model=self.model,
            threads=self.threads or 1,
            memlimit=self.memlimit,
            force=self.force,
            resume=resume,
        )

    def derive(self, name: str) -> str:
        """Remove the suffix."""
        return content_name(name)

    def wanted(self, path: str) -> bool:
        """Go by the suffix: an archive may be too damaged to be known by its content."""
        return path.endswith(SUFFIX)

    def check(self, name: str, head: bytes) -> None:  # noqa: ARG002 - see the base class
        """Refuse foreign files, whatever their names."""
        if not self.salvage and not begins_small(head):
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
    def _destination(self, target: str | None, source: os.stat_result | None) -> Iterator[BinaryIO]:  # noqa: ARG002
        with open(os.devnull, "wb") as nowhere:
            yield nowhere

    def _in_the_way(self, target: str | None) -> bool:  # noqa: ARG002
        return False
