"""Bytes and streams to archives and back."""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING, BinaryIO

from llmzip.api.buffers import byte_view
from llmzip.coding.byte_coder import ByteCoder
from llmzip.coding.progress import Progress
from llmzip.coding.threads import usable_cores
from llmzip.coding.token_coder import TokenCoder
from llmzip.container.format import BYTES, MODEL, NO_MODEL, STORED, ArchiveHeader, Frame, Writer
from llmzip.container.peekable import PeekableStream
from llmzip.container.reader import Reader
from llmzip.container.salvage import Salvager
from llmzip.errors import HardwareError, LimitError, LlmzipError, ModelError
from llmzip.mixing import layout
from llmzip.model import registry
from llmzip.model.file import Model

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

FRAME_BYTES = 1 << 26  # content per frame: bounds the reach of repeats, the memory, and the loss by one damaged byte
PROBE_BYTES = 1 << 14  # sample that decides whether a frame can be made smaller at all
CHOICE_BYTES = 1 << 16  # sample that decides whether the language model pays
CLEAR_WIN = 0.9  # times the size

_token_coders: dict[tuple[bytes, int, str], TokenCoder] = {}


def _token_coder(model: Model, threads: int, device: str) -> TokenCoder:
    """Return the coder of a model, kept for the next call."""
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
    """Return the coder for frames without a language model, and the id of its initial state."""
    initial_state, initial_state_digest = registry.initial_state_for_bytes()
    return ByteCoder(initial_state), initial_state_digest


class _FrameProgress:
    """Pass progress on, and make up the difference at the end of a frame: stored frames report nothing on their own."""

    def __init__(self, progress: Progress | None):
        self._progress, self._reported = progress, 0

    def __call__(self, size: int) -> None:
        self._reported += size
        if self._progress:
            self._progress(size)

    def finish(self, size: int) -> None:
        """Report what is missing of a frame of `size` bytes."""
        if size > self._reported:
            self(size - self._reported)
        self._reported = 0


def _incompressible(content: bytes) -> bool:
    """Return whether a long frame cannot be made smaller, judging by a sample."""
    if len(content) < 8 * PROBE_BYTES:
        return False
    quarter = len(content) // 4
    sample = b"".join(content[i * quarter : i * quarter + PROBE_BYTES // 4] for i in range(4))
    return _byte_coder()[0].encode(sample) is None


class FrameEncoder:
    """The encoder of one archive: writes its frames on `dst`, each in the form that suits it best.

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
        self._threads, self._device, self._progress = threads, device, _FrameProgress(progress)

    def write(self, content: bytes, *, last: bool) -> None:
        """Write FRAME_BYTES of content; fewer if it is the last frame, none if it is the only one."""
        self._write(content, last)
        self._progress.finish(len(content))

    def _write(self, content: bytes, last: bool) -> None:
        if content and not _incompressible(content):
            token_coder = _token_coder(self._model, self._threads, self._device) if self._model else None
            if token_coder and (not self._choose or self._model_pays(content, token_coder)):
                if coded := token_coder.encode(content, progress=self._progress):
                    self._writer.write(content, last=last, payload=coded.payload, lane_bytes=coded.lane_bytes)
                    return
            else:
                byte_coder, initial_state_digest = _byte_coder()
                if payload := byte_coder.encode(content, progress=self._progress):
                    self._writer.write(content, last=last, payload=payload, initial_state_digest=initial_state_digest)
                    return
        self._writer.write(content, last=last)

    def _model_pays(self, content: bytes, token_coder: TokenCoder) -> bool:
        """Return whether a frame gets smaller with the language model than without, judging by a sample.

        The model predicts well from the first byte; the mixer learns from the file itself later. So where the sample of
        a longer frame is nearly a tie, its second half decides.
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


class FrameDecoder:
    """The decoder of frames, of one archive or several; arguments are those of :func:`decompress_stream`."""

    def __init__(
        self,
        *,
        model: str | None = None,
        threads: int = 0,
        device: str = "cpu",
        progress: Progress | None = None,
        max_size: int | None = None,
        memlimit: int | None = None,
    ):
        self._model, self._threads, self._device = model, threads, device
        self._max_size, self._memlimit = max_size, memlimit
        self._size = 0  # of all frames so far
        self._progress = _FrameProgress(progress)

    def decode(self, frame: Frame) -> bytes:
        """Return the verified content of a frame.

        A model that was named must exist, even if this frame needs none.
        """
        self._check_limits(frame)
        if self._model not in (None, registry.NONE):
            registry.load(self._model)
        content = self._decode(frame)
        self.skip(frame)
        return content

    def _check_limits(self, frame: Frame) -> None:
        """Raise LimitError if the caller does not allow what decoding the frame takes or gives."""
        header = frame.header
        need = layout.needed(header.size, model=header.kind == MODEL)
        if header.kind == STORED:
            need = layout.PROGRAM_BYTES + 2 * header.size
        if self._memlimit is not None and need > self._memlimit:
            raise LimitError(
                f"takes about {need} bytes of memory, over the limit of {self._memlimit} (raise --memlimit)"
            )
        self._size += frame.header.size
        if self._max_size is not None and self._size > self._max_size:
            raise LimitError(f"holds more than {self._max_size} bytes of content, which is the limit")

    def skip(self, frame: Frame) -> None:
        """Report what is missing of a frame's progress: it is done, or lost."""
        self._progress.finish(frame.header.size)

    def _decode(self, frame: Frame) -> bytes:
        if frame.header.kind == STORED:
            frame.verify(frame.payload)
            return frame.payload
        if frame.header.kind == BYTES:
            byte_coder, initial_state_digest = _byte_coder()
            content = byte_coder.decode(frame.payload, frame.header.size, progress=self._progress)
            frame.verify(content, initial_state_digest)
            return content
        archive = frame.archive or ArchiveHeader()
        loaded = registry.for_archive(archive.number, archive.model_id, self._model)
        token_coder = _token_coder(loaded, self._threads, self._device)
        content = token_coder.decode(frame.payload, list(frame.header.lane_bytes), progress=self._progress)
        frame.verify(content, loaded.digest)
        return content


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
        progress: called with the number of bytes compressed since the last call.
    """
    encoder = FrameEncoder(dst, model=model, threads=threads, device=device, progress=progress)
    source, last = PeekableStream(src), False
    while not last:
        content = source.take(FRAME_BYTES)
        last = len(content) < FRAME_BYTES or not source.peek(1)
        encoder.write(content, last=last)


def decompress_stream(
    src: BinaryIO,
    dst: BinaryIO,
    *,
    model: str | None = None,
    threads: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
    keep_going: bool = False,
    max_size: int | None = None,
    memlimit: int | None = None,
) -> None:
    """Decompress all archives in `src`, one after another, onto `dst`.

    Every frame is verified before it is written, so what is on `dst` when an error is raised is right but incomplete.

    Args:
        src, dst, threads, device: as for :func:`compress_stream`.
        model: the model to use; None to find the one that the archive names.
        progress: called with the number of bytes decompressed since the last call.
        keep_going: skip what is damaged, and raise SalvageError at the end if anything was.
        max_size: bytes of content; raise LimitError rather than decompress a frame that leads beyond.
        memlimit: bytes of memory; raise LimitError rather than decompress a frame that takes more, about.
    """
    decoder = FrameDecoder(
        model=model, threads=threads, device=device, progress=progress, max_size=max_size, memlimit=memlimit
    )
    reader = Salvager(src) if keep_going else Reader(src)
    for frame in reader:
        try:
            content = decoder.decode(frame)
        except (ModelError, HardwareError, LimitError):
            raise  # nothing is wrong with the archive
        except LlmzipError as error:
            reader.lose(frame, error)
            decoder.skip(frame)
            content = b""
        dst.write(content)


def compress(data: ReadableBuffer, *, model: str | None = None, threads: int = 0) -> bytes:
    """Return `data` as an archive; arguments as for :func:`compress_stream`."""
    out = io.BytesIO()
    compress_stream(io.BytesIO(byte_view(data)), out, model=model, threads=threads)
    return out.getvalue()


def decompress(
    data: ReadableBuffer,
    *,
    model: str | None = None,
    threads: int = 0,
    max_size: int | None = None,
    memlimit: int | None = None,
) -> bytes:
    """Return the content of the archives in `data`; raises LlmzipError for anything else.

    Arguments as for :func:`decompress_stream`.
    """
    out, source = io.BytesIO(), io.BytesIO(byte_view(data))
    decompress_stream(source, out, model=model, threads=threads, max_size=max_size, memlimit=memlimit)
    return out.getvalue()
