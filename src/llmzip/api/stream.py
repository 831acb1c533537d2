"""Bytes and streams to archives and back."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO

from llmzip.api.buffers import byte_view
from llmzip.api.frames import CodedFrame, FrameDecoder, FrameEncoder, Shares
from llmzip.api.short_coder import decode_small
from llmzip.coding.progress import Progress
from llmzip.container.format import MAX_SIZE, NO_MODEL, Frame, Writer
from llmzip.container.peekable import PeekableStream
from llmzip.container.reader import Reader
from llmzip.container.salvage import Salvager
from llmzip.errors import HardwareError, LimitError, LlmzipError, ModelError
from llmzip.model import registry
from llmzip.threads import in_order

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

FRAME_BYTES = MAX_SIZE  # content per frame: bounds the reach of repeats, the memory, and the loss by one damaged byte
LEAST_FRAME_BYTES = 1 << 20


def frame_bytes(size: int | None) -> int:
    """Return the bytes of content per frame, the default for None; raises ValueError for a size out of bounds."""
    if size is None:
        return FRAME_BYTES
    if not LEAST_FRAME_BYTES <= size <= MAX_SIZE:
        raise ValueError(f"a frame holds {LEAST_FRAME_BYTES} to {MAX_SIZE} bytes, not {size}")
    return size


def new_writer(dst: BinaryIO, encoder: FrameEncoder) -> Writer:
    """Return the writer of an archive whose frames `encoder` codes."""
    digest = encoder.model.digest if encoder.model else NO_MODEL
    return Writer(dst, digest, registry.number_of(digest))


def code_frame(content: bytes, *, number: int, last: bool, model: str | None = None, threads: int = 0) -> Frame:
    """Return frame `number`, from 1, of an archive, coded as :func:`compress_stream` does, without the others."""
    encoder = FrameEncoder(model=model)
    writer = new_writer(io.BytesIO(), encoder)
    return writer.frame(content, number=number, last=last, **encoder.encode(content, threads)._asdict())


def _cut(src: BinaryIO, size: int) -> Iterator[tuple[bytes, bool]]:
    """Yield the contents of frames, and whether each is the last; one frame for an empty stream."""
    source, last = PeekableStream(src), False
    while not last:
        content = source.take(size)
        last = len(content) < size or not source.peek(1)
        yield content, last


def compress_stream(
    src: BinaryIO,
    dst: BinaryIO,
    *,
    model: str | None = None,
    threads: int = 0,
    device: str = "cpu",
    frame_size: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Compress everything that `src` holds into one archive on `dst`.

    Args:
        src, dst: binary streams; they need not be seekable.
        model: a shipped model's name, a model file, or "none" for no language model; None for the default model
            where it pays.
        threads: in all, 0 for one per core: several frames are compressed at the same time, as far as 2 GiB of memory
            go, about. The archive does not depend on it.
        device: "cpu" or a torch device; the archive does not depend on it either.
        frame_size: bytes of content per frame, 1 to 64 MiB; None for 64 MiB. Smaller frames make larger archives, in
            which a read at a random place decodes less.
        progress: called with the number of bytes compressed since the last call.
    """
    encoder = FrameEncoder(model=model, device=device, progress=progress)
    writer, contents = new_writer(dst, encoder), _cut(src, frame_bytes(frame_size))
    content, last = next(contents)
    if last:
        writer.write(content, last=True, **encoder.encode(content, threads)._asdict())
        return
    shares = Shares(len(content), model=encoder.model.memory if encoder.model else 0, threads=threads)

    def encode(content: bytes, last: bool) -> tuple[bytes, bool, CodedFrame]:
        with shares.memory(len(content)):
            return content, last, encoder.encode(content, shares.threads)

    calls = (partial(encode, *item) for item in chain([(content, last)], contents))
    for content, last, coded in in_order(calls, shares.count):
        writer.write(content, last=last, **coded._asdict())


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
        memlimit: bytes of memory; raise LimitError rather than decompress a frame that takes more, about. Frames are
            decompressed one at a time then.
    """
    decoder = FrameDecoder(
        model=model, threads=threads, device=device, progress=progress, max_size=max_size, memlimit=memlimit
    )
    if keep_going:
        _salvage(Salvager(src), dst, decoder)
        return
    reader = Reader(src)
    if (short := reader.short_text()) is not None:
        dst.write(decode_small(short, model, max_size))
        return
    frames = iter(reader)
    first = next(frames)
    if first.header.last or memlimit is not None:
        for frame in chain([first], frames):
            dst.write(decoder.decode(frame))
        return
    shares = Shares(first.header.size, model=decoder.model_bytes(first), threads=threads)

    def decode(frame: Frame) -> bytes:
        with shares.memory(frame.header.size):
            return decoder.decode_admitted(frame, shares.threads)

    def calls() -> Iterator[Callable[[], bytes]]:
        for frame in chain([first], frames):
            decoder.admit(frame)
            yield partial(decode, frame)

    for content in in_order(calls(), shares.count):
        dst.write(content)


def _salvage(salvager: Salvager, dst: BinaryIO, decoder: FrameDecoder) -> None:
    """Write the content of all frames that can be decoded."""
    for frame in salvager:
        progress = decoder.new_progress()
        try:
            dst.write(decoder.decode(frame, progress))
        except (ModelError, HardwareError, LimitError):
            raise  # nothing is wrong with the archive
        except LlmzipError as error:
            salvager.lose(frame, error)
            progress.finish(frame.header.size)


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
