"""Bytes and streams to archives and back."""

from __future__ import annotations

import errno
import functools
import io
import os
from collections.abc import Callable
from typing import BinaryIO

from llmzip import models, start
from llmzip.bytecoder import ByteCoder
from llmzip.engine import Engine
from llmzip.errors import HardwareError, LlmzipError, ModelError
from llmzip.format import BYTES, STORED, ArchiveHeader, Frame, Writer
from llmzip.modelfile import Model
from llmzip.reader import Reader
from llmzip.salvage import Salvager

FRAME_BYTES = 1 << 25  # content per frame: what repeats can reach back, the memory, and what one damaged byte can cost
HOPE_BYTES = 1 << 14  # sample that tells whether a frame can be made smaller at all
CHOICE_BYTES = 1 << 16  # sample that tells whether the language model pays
Progress = Callable[[int], None]

_engines: dict[tuple[bytes, int, str], Engine] = {}


def _engine(model: Model, threads: int, device: str) -> Engine:
    """Return the engine for a model, kept for the next call."""
    threads = threads or len(os.sched_getaffinity(0))
    key = (model.digest, threads, device)
    engine = _engines.get(key)
    if engine is None:
        engine = Engine(model, threads=threads, device=device)
        _engines.clear()  # one model's memory is enough; another thread may do the same now
        _engines[key] = engine
    return engine


@functools.cache
def _byte_coder() -> tuple[ByteCoder, bytes]:
    """Return the coder for frames without a language model, and the identity of its start values."""
    values, identity = start.for_bytes(models.shipped_folder())
    return ByteCoder(values), identity


def _read_up_to(src: BinaryIO, size: int) -> bytes:
    """Read `size` bytes, fewer only at the end: a pipe gives what it has.

    Raises BlockingIOError if that is nothing because somebody made the pipe non-blocking: it is not the end.
    """
    parts = []
    while size and (part := src.read(size)) != b"":
        if part is None:
            raise BlockingIOError(errno.EAGAIN, "the input is non-blocking and has no data now")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class _Rest:
    """Pass progress on, and at the end of a frame what nobody has told: stored frames tell nothing, or stop."""

    def __init__(self, progress: Progress | None):
        self._progress, self._told = progress, 0

    def __call__(self, size: int) -> None:
        self._told += size
        if self._progress:
            self._progress(size)

    def finish(self, size: int) -> None:
        """Tell what is missing of a frame's `size`."""
        if size > self._told:
            self(size - self._told)
        self._told = 0


def _hopeless(content: bytes) -> bool:
    """Tell from a sample whether a long frame cannot be made smaller."""
    if len(content) < 8 * HOPE_BYTES:
        return False
    quarter = len(content) // 4
    sample = b"".join(content[i * quarter : i * quarter + HOPE_BYTES // 4] for i in range(4))
    return _byte_coder()[0].encode(sample) is None


class _FrameEncoder:
    """Code frames in the form that suits each best; `engine` is made when it is first needed."""

    def __init__(self, writer: Writer, engine: Callable[[], Engine] | None, *, choose: bool):
        self._writer, self._engine, self._choose = writer, engine, choose

    def _model_pays(self, content: bytes, engine: Engine) -> bool:
        """Tell from a sample whether a frame gets smaller with the language model than without."""
        middle = max(0, (len(content) - CHOICE_BYTES) // 2)
        sample = content[middle : middle + CHOICE_BYTES]
        plain = _byte_coder()[0].encode(sample)
        return engine.encode(sample, capacity=len(plain or sample) - 1) is not None

    def write(self, content: bytes, *, last: bool, progress: _Rest) -> None:
        """Write one frame of any kind."""
        if content and not _hopeless(content):
            engine = self._engine() if self._engine else None
            if engine and (not self._choose or self._model_pays(content, engine)):
                if coded := engine.encode(content, progress=progress):
                    self._writer.write(content, last=last, payload=coded.payload, lane_bytes=coded.lane_bytes)
                    return
            else:
                plain, identity = _byte_coder()
                if payload := plain.encode(content, progress=progress):
                    self._writer.write(content, last=last, payload=payload, start=identity)
                    return
        self._writer.write(content, last=last)


def compress_stream(
    src: BinaryIO,
    dst: BinaryIO,
    *,
    model: str | None = None,
    threads: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> None:
    """Compress everything that `src` holds into one archive on `dst`.

    Args:
        src, dst: binary streams; they need not be seekable.
        model: a shipped model's name, a model file, or "none" for no language model; None for the default model
            where it pays.
        threads: for the network; 0 for one per core. The archive does not depend on it.
        device: "cpu" or a torch device; the archive does not depend on it either.
        progress: told the number of bytes compressed since it was last called.
    """
    if model == models.NONE:
        encoder = _FrameEncoder(Writer(dst), None, choose=False)
    else:
        loaded = models.load(model or models.DEFAULT)
        writer = Writer(dst, loaded.digest, models.number_of(loaded.digest))
        encoder = _FrameEncoder(writer, lambda: _engine(loaded, threads, device), choose=model is None)
    told = _Rest(progress)
    content = _read_up_to(src, FRAME_BYTES)
    while True:
        following = _read_up_to(src, FRAME_BYTES) if len(content) == FRAME_BYTES else b""
        encoder.write(content, last=not following, progress=told)
        told.finish(len(content))
        if not following:
            return
        content = following


def decompress_stream(
    src: BinaryIO,
    dst: BinaryIO,
    *,
    model: str | None = None,
    threads: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
    keep_going: bool = False,
) -> None:
    """Decompress all archives in `src`, one after another, onto `dst`.

    Every frame is verified before it is written, so what is on `dst` when an error is raised is right but incomplete.

    Args:
        src, dst, threads, device: as for :func:`compress_stream`.
        model: the model to use; None to find the one that the archive names.
        progress: told the number of bytes decompressed since it was last called.
        keep_going: pass over what is damaged, and raise SalvageError at the end if anything was.
    """
    reader = Salvager(src) if keep_going else Reader(src)
    told = _Rest(progress)
    for frame in reader:
        try:
            content = _decode(frame, model, threads, device, told)
        except (ModelError, HardwareError):
            raise  # nothing is wrong with the archive
        except LlmzipError as error:
            reader.lose(frame, error)
            content = b""
        told.finish(frame.header.size)
        dst.write(content)


def _decode(frame: Frame, named: str | None, threads: int, device: str, progress: Progress) -> bytes:
    if frame.header.kind == STORED:
        frame.verify(frame.payload)
        return frame.payload
    if frame.header.kind == BYTES:
        plain, identity = _byte_coder()
        content = plain.decode(frame.payload, frame.header.size, progress=progress)
        frame.verify(content, identity)
        return content
    archive = frame.archive or ArchiveHeader()
    loaded = models.for_archive(archive.number, archive.identity, named)
    engine = _engine(loaded, threads, device)
    content = engine.decode(frame.payload, list(frame.header.lane_bytes), progress=progress)
    frame.verify(content, loaded.digest)
    return content


def compress(data: bytes, *, model: str | None = None, threads: int = 0) -> bytes:
    """Return `data` as an archive; arguments as for :func:`compress_stream`."""
    out = io.BytesIO()
    compress_stream(io.BytesIO(data), out, model=model, threads=threads)
    return out.getvalue()


def decompress(data: bytes, *, model: str | None = None, threads: int = 0) -> bytes:
    """Return the content of the archives in `data`; raises LlmzipError for anything else."""
    out = io.BytesIO()
    decompress_stream(io.BytesIO(data), out, model=model, threads=threads)
    return out.getvalue()
