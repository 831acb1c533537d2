"""Bytes and streams to archives and back."""

from __future__ import annotations

import errno
import functools
import io
from typing import TYPE_CHECKING, BinaryIO

from llmzip.coding.byte_coder import ByteCoder
from llmzip.coding.progress import Progress
from llmzip.coding.threads import usable_cores
from llmzip.coding.token_coder import TokenCoder
from llmzip.container.format import BYTES, NO_MODEL, STORED, ArchiveHeader, Frame, Writer
from llmzip.container.reader import Reader
from llmzip.container.salvage import Salvager
from llmzip.errors import HardwareError, LlmzipError, ModelError
from llmzip.model import registry
from llmzip.model.file import Model

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

FRAME_BYTES = 1 << 26  # content per frame: what repeats can reach back, the memory, and what one damaged byte can cost
PROBE_BYTES = 1 << 14  # sample that tells whether a frame can be made smaller at all
CHOICE_BYTES = 1 << 16  # sample that tells whether the language model pays
CLEAR_WIN = 0.9  # times the size

_token_coders: dict[tuple[bytes, int, str], TokenCoder] = {}


def _token_coder(model: Model, threads: int, device: str) -> TokenCoder:
    """Return the token_coder for a model, kept for the next call."""
    threads = threads or usable_cores()
    key = (model.digest, threads, device)
    token_coder = _token_coders.get(key)
    if token_coder is None:
        token_coder = TokenCoder(model, threads=threads, device=device)
        _token_coders.clear()  # one model's memory is enough; another thread may do the same now
        _token_coders[key] = token_coder
    return token_coder


@functools.cache
def _byte_coder() -> tuple[ByteCoder, bytes]:
    """Return the coder for frames without a language model, and the identity of its start values."""
    values, identity = registry.initial_state_for_bytes()
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


def _incompressible(content: bytes) -> bool:
    """Tell from a sample whether a long frame cannot be made smaller."""
    if len(content) < 8 * PROBE_BYTES:
        return False
    quarter = len(content) // 4
    sample = b"".join(content[i * quarter : i * quarter + PROBE_BYTES // 4] for i in range(4))
    return _byte_coder()[0].encode(sample) is None


class Encoder:
    """Write one archive on `dst`, frame by frame, each in the form that suits it best.

    Arguments are those of :func:`compress_stream`.
    """

    def __init__(
        self,
        dst: BinaryIO,
        *,
        model: str | None = None,
        threads: int = 0,
        device: str = "cpu",
        progress: Progress | None = None,
    ):
        self._model = None if model == registry.NONE else registry.load(model or registry.DEFAULT)
        digest = self._model.digest if self._model else NO_MODEL
        self._writer = Writer(dst, digest, registry.number_of(digest))
        self._choose = model is None
        self._threads, self._device, self._told = threads, device, _Rest(progress)

    def write(self, content: bytes, *, last: bool) -> None:
        """Write FRAME_BYTES of content; fewer if it is the last frame, none if it is the only one."""
        self._write(content, last)
        self._told.finish(len(content))

    def _write(self, content: bytes, last: bool) -> None:
        if content and not _incompressible(content):
            token_coder = _token_coder(self._model, self._threads, self._device) if self._model else None
            if token_coder and (not self._choose or self._model_pays(content, token_coder)):
                if coded := token_coder.encode(content, progress=self._told):
                    self._writer.write(content, last=last, payload=coded.payload, lane_bytes=coded.lane_bytes)
                    return
            else:
                plain, identity = _byte_coder()
                if payload := plain.encode(content, progress=self._told):
                    self._writer.write(content, last=last, payload=payload, start=identity)
                    return
        self._writer.write(content, last=last)

    def _model_pays(self, content: bytes, token_coder: TokenCoder) -> bool:
        """Tell from a sample whether a frame gets smaller with the language model than without.

        The model knows much from the beginning; what the file itself teaches comes later. So where a sample of a
        longer frame is nearly a tie, its second half decides.
        """
        middle = max(0, (len(content) - CHOICE_BYTES) // 2)
        sample = content[middle : middle + CHOICE_BYTES]

        def sizes(text: bytes) -> tuple[int, int]:
            coded, plain = token_coder.encode(text), _byte_coder()[0].encode(text)
            return len(coded.payload if coded else text), len(plain or text)

        coded, plain = sizes(sample)
        if coded >= plain or coded < CLEAR_WIN * plain or len(content) <= CHOICE_BYTES:
            return coded < plain
        coded_before, plain_before = sizes(sample[: len(sample) // 2])
        return coded - coded_before < plain - plain_before


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
    encoder = Encoder(dst, model=model, threads=threads, device=device, progress=progress)
    content = _read_up_to(src, FRAME_BYTES)
    while True:
        following = _read_up_to(src, FRAME_BYTES) if len(content) == FRAME_BYTES else b""
        encoder.write(content, last=not following)
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
            content = decode_frame(frame, model=model, threads=threads, device=device, progress=told)
        except (ModelError, HardwareError):
            raise  # nothing is wrong with the archive
        except LlmzipError as error:
            reader.lose(frame, error)
            content = b""
        told.finish(frame.header.size)
        dst.write(content)


def decode_frame(
    frame: Frame, *, model: str | None = None, threads: int = 0, device: str = "cpu", progress: Progress | None = None
) -> bytes:
    """Return the verified content of a frame; arguments as for :func:`decompress_stream`.

    A model that was named must be there, even if this frame needs none: who names one means it.
    """
    if model not in (None, registry.NONE):
        registry.load(model)
    if frame.header.kind == STORED:
        frame.verify(frame.payload)
        return frame.payload
    if frame.header.kind == BYTES:
        plain, identity = _byte_coder()
        content = plain.decode(frame.payload, frame.header.size, progress=progress)
        frame.verify(content, identity)
        return content
    archive = frame.archive or ArchiveHeader()
    loaded = registry.for_archive(archive.number, archive.model_id, model)
    token_coder = _token_coder(loaded, threads, device)
    content = token_coder.decode(frame.payload, list(frame.header.lane_bytes), progress=progress)
    frame.verify(content, loaded.digest)
    return content


def compress(data: ReadableBuffer, *, model: str | None = None, threads: int = 0) -> bytes:
    """Return `data` as an archive; arguments as for :func:`compress_stream`."""
    out = io.BytesIO()
    compress_stream(io.BytesIO(data), out, model=model, threads=threads)
    return out.getvalue()


def decompress(data: ReadableBuffer, *, model: str | None = None, threads: int = 0) -> bytes:
    """Return the content of the archives in `data`; raises LlmzipError for anything else."""
    out = io.BytesIO()
    decompress_stream(io.BytesIO(data), out, model=model, threads=threads)
    return out.getvalue()
