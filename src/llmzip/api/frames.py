"""Frames to their coded form and back: the encoder and the decoder of an archive's frames, one by one."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from llmzip.coding.byte_coder import ByteCoder
from llmzip.coding.progress import Progress
from llmzip.coding.token_coder import Coded, TokenCoder
from llmzip.container.format import BYTES, MODEL, STORED, ArchiveHeader, Frame
from llmzip.errors import LimitError
from llmzip.mixing import layout
from llmzip.model import registry
from llmzip.threads import usable_cores

if TYPE_CHECKING:
    from llmzip.model.file import Model

PROBE_BYTES = 1 << 14  # sample that decides whether a frame can be made smaller at all
CHOICE_BYTES = 1 << 16  # sample that decides whether the language model pays
CHOICE_BYTES_OF_PUBLISHED = 1 << 14  # for a published model, which takes seconds for it
CLEAR_WIN = 0.9  # times the size

TOO_LARGE = "holds more than {} bytes of content, which is the limit"

MEMORY_AT_ONCE = 1 << 31  # bytes, about, for all frames that are coded at the same time

_token_coders: dict[tuple[bytes, int, str], TokenCoder] = {}


def token_coder_of(model: Model, threads: int, device: str) -> TokenCoder:
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
def byte_coder() -> tuple[ByteCoder, bytes]:
    """Return the coder for frames without a language model, and the id of its initial state."""
    initial_state, initial_state_digest = registry.initial_state_for_bytes()
    return ByteCoder(initial_state), initial_state_digest


class Shares:
    """What frames that are coded at the same time get of threads and memory.

    Attributes:
        count: frames at the same time, of `size` bytes; more than one only if they all find room.
        threads: for each of them, of `threads` in all, 0 for one per core.
    """

    def __init__(self, size: int, *, model: int, threads: int):
        threads = threads or usable_cores()
        self._model, self._free, self._changed = model, MEMORY_AT_ONCE, threading.Condition()
        self.count = max(1, min(threads, MEMORY_AT_ONCE // self._need(size)))
        self.threads = threads // self.count

    def _need(self, size: int) -> int:
        need = layout.needed(size, model=self._model) - layout.PROGRAM_BYTES
        return min(need, MEMORY_AT_ONCE)  # one frame alone may take more

    @contextmanager
    def memory(self, size: int) -> Iterator[None]:
        """Wait until there is room for a frame of `size` bytes: those of an archive need not be equally large."""
        need = self._need(size)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= need)
            self._free -= need
        try:
            yield
        finally:
            with self._changed:
                self._free += need
                self._changed.notify_all()


class TotalProgress:
    """The progress of frames that may be coded at the same time: reported one call at a time."""

    def __init__(self, progress: Progress | None):
        self._progress, self._lock = progress, threading.Lock()

    def report(self, size: int) -> None:
        """Pass the number of bytes on."""
        if self._progress and size:
            with self._lock:
                self._progress(size)


class FrameProgress:
    """The progress of one frame; it makes up the difference at the end, as stored frames report nothing themselves."""

    def __init__(self, total: TotalProgress):
        self._total, self._reported = total, 0

    def __call__(self, size: int) -> None:
        """Report that `size` bytes more are done."""
        self._reported += size
        self._total.report(size)

    def finish(self, size: int) -> None:
        """Report what is missing of a frame of `size` bytes."""
        self(max(0, size - self._reported))


def _incompressible(content: bytes) -> bool:
    """Return whether a long frame cannot be made smaller, judging by a sample."""
    if len(content) < 8 * PROBE_BYTES:
        return False
    quarter = len(content) // 4
    sample = b"".join(content[i * quarter : i * quarter + PROBE_BYTES // 4] for i in range(4))
    return byte_coder()[0].encode(sample) is None


class CodedFrame(NamedTuple):
    """How to write a frame: arguments of :meth:`llmzip.container.format.Writer.write`; no payload if it is stored."""

    payload: bytes | None = None
    lane_bytes: list[int] | tuple[()] = ()
    initial_state_digest: bytes | None = None


def _by_model(coded: Coded | None) -> CodedFrame:
    return CodedFrame(coded.payload, coded.lane_bytes) if coded else CodedFrame()


def _by_bytes(payload: bytes | None) -> CodedFrame:
    return CodedFrame(payload, (), byte_coder()[1]) if payload else CodedFrame()


class FrameEncoder:
    """The encoder of frames, each in the form that suits it best; for several threads at a time.

    Args:
        model: a model's name, a model file, or "none" for no language model; None for the default model where it
            pays. A published model, too, is used where it pays.
        device: "cpu" or a torch device.
        progress: called with the number of bytes compressed since the last call.
    """

    def __init__(self, *, model: str | None = None, device: str = "cpu", progress: Progress | None = None):
        self.model: Model | None = None if model == registry.NONE else registry.load(model or registry.DEFAULT)
        published = self.model is not None and self.model.published
        self._choose = model is None or published
        self._sample = CHOICE_BYTES_OF_PUBLISHED if published else CHOICE_BYTES
        self._sample_lanes = 2 if published else None  # one would leave a second thread nothing to do
        self._device, self._progress = device, TotalProgress(progress)

    def encode(self, content: bytes, threads: int) -> CodedFrame:
        """Code the content of a frame, with `threads` for the network, 0 for one per core."""
        progress = FrameProgress(self._progress)
        coded = self._encode(content, threads, progress)
        progress.finish(len(content))
        return coded

    def _encode(self, content: bytes, threads: int, progress: Progress) -> CodedFrame:
        if not content or _incompressible(content):
            return CodedFrame()
        token_coder = token_coder_of(self.model, threads, self._device) if self.model else None
        if token_coder and self._choose and len(content) <= self._sample:
            coded, payload = token_coder.encode(content, progress=progress), byte_coder()[0].encode(content)
            by_model = coded is not None and (payload is None or len(coded.payload) < len(payload))
            return _by_model(coded) if by_model else _by_bytes(payload)
        if token_coder and (not self._choose or self._model_pays(content, token_coder)):
            return _by_model(token_coder.encode(content, progress=progress))
        return _by_bytes(byte_coder()[0].encode(content, progress=progress))

    def _model_pays(self, content: bytes, token_coder: TokenCoder) -> bool:
        """Return whether a longer frame gets smaller with the language model than without, judging by a sample.

        The model predicts well from the first byte; the mixer learns from the file itself later. So where the sample of
        a longer frame is nearly a tie, its second half decides.
        """
        middle = (len(content) - self._sample) // 2
        sample = content[middle : middle + self._sample]

        def sizes(text: bytes) -> tuple[int, int]:
            coded, plain = token_coder.encode(text, lane_count=self._sample_lanes), byte_coder()[0].encode(text)
            return len(coded.payload if coded else text), len(plain or text)

        coded, plain = sizes(sample)
        if coded >= plain or coded < CLEAR_WIN * plain:
            return coded < plain
        coded_before, plain_before = sizes(sample[: len(sample) // 2])
        return coded - coded_before < plain - plain_before


class FrameDecoder:
    """The decoder of frames, of one archive or several; arguments are those of :func:`llmzip.decompress_stream`.

    Frames are admitted in their order; then several threads may decode them at the same time.
    """

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
        self._progress = TotalProgress(progress)

    def decode(self, frame: Frame, progress: FrameProgress | None = None) -> bytes:
        """Admit a frame and return its verified content; `progress` is for who goes on after a failure."""
        self.admit(frame)
        return self.decode_admitted(frame, self._threads, progress)

    def decode_admitted(self, frame: Frame, threads: int, progress: FrameProgress | None = None) -> bytes:
        """Return the verified content of a frame, with `threads` for the network, 0 for one per core."""
        progress = progress or self.new_progress()
        content = self._decode(frame, threads, progress)
        progress.finish(frame.header.size)
        return content

    def new_progress(self) -> FrameProgress:
        """Return the progress of one frame."""
        return FrameProgress(self._progress)

    @staticmethod
    def model_bytes(frame: Frame) -> int:
        """Return the memory in bytes, about, that the model of a frame takes."""
        archive = frame.archive or ArchiveHeader()
        return registry.memory_of(archive.number, archive.model_id)

    def _needed(self, frame: Frame) -> int:
        """Return the memory in bytes, about, that decoding a frame takes; looks for its model's file."""
        header = frame.header
        if header.kind == STORED:
            return layout.PROGRAM_BYTES + 2 * header.size
        return layout.needed(header.size, model=self.model_bytes(frame) if header.kind == MODEL else 0)

    def admit(self, frame: Frame) -> None:
        """Raise LimitError if the caller does not allow what decoding the frame takes or gives.

        A model that was named must exist, even if this frame needs none.
        """
        if self._memlimit is not None:
            need = self._needed(frame)
            if need > self._memlimit:
                raise LimitError(
                    f"takes about {need} bytes of memory, over the limit of {self._memlimit} (raise --memlimit)"
                )
        self._size += frame.header.size
        if self._max_size is not None and self._size > self._max_size:
            raise LimitError(TOO_LARGE.format(self._max_size))
        if self._model not in (None, registry.NONE):
            registry.load(self._model)

    def _decode(self, frame: Frame, threads: int, progress: Progress) -> bytes:
        if frame.header.kind == STORED:
            frame.verify(frame.payload)
            return frame.payload
        if frame.header.kind == BYTES:
            coder, initial_state_digest = byte_coder()
            content = coder.decode(frame.payload, frame.header.size, progress=progress)
            frame.verify(content, initial_state_digest)
            return content
        archive = frame.archive or ArchiveHeader()
        loaded = registry.for_archive(archive.number, archive.model_id, self._model)
        token_coder = token_coder_of(loaded, threads, self._device)
        content = token_coder.decode(frame.payload, list(frame.header.lane_bytes), progress=progress)
        frame.verify(content, loaded.digest)
        return content
