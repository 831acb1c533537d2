"""What is in an archive, from its headers, without decoding anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from llmzip.api.buffers import byte_view
from llmzip.container import small
from llmzip.container.format import (
    MAX_HEAD,
    MODEL,
    VERSION,
    ArchiveHeader,
    Frame,
    parse_frame,
)
from llmzip.container.reader import Reader, check_start
from llmzip.mixing import layout
from llmzip.model import registry

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


@dataclass(frozen=True)
class FrameInfo:
    """One frame: sizes in bytes, lanes, whether it ends its archive.

    The model is "none", and there are no lanes, where no language model is needed; `model_bytes` is about the memory
    that it takes.
    """

    decompressed_size: int
    compressed_size: int
    lanes: int
    last: bool
    model: str
    model_bytes: int
    format_version: int = VERSION

    @classmethod
    def of(cls, frame: Frame) -> FrameInfo:
        """Return the description of `frame`."""
        archive, header = frame.archive or ArchiveHeader(), frame.header
        model, memory = registry.NONE, 0
        if header.kind == MODEL:
            model = registry.title(archive.number, archive.model_id)
            memory = registry.memory_of(archive.number, archive.model_id)
        return cls(header.size, frame.stored_size, len(header.lane_bytes), header.last, model, memory)


@dataclass(frozen=True)
class ArchiveInfo:
    """A whole file: sizes in bytes, number of frames, the most lanes of any frame, the models needed.

    `memory` is about what decompressing takes, in bytes.
    """

    decompressed_size: int
    compressed_size: int
    frames: int
    lanes: int
    models: tuple[str, ...]
    memory: int
    format_version: int = VERSION


def get_frame_info(frame_buffer: ReadableBuffer) -> FrameInfo:
    """Return the description of the frame that begins `frame_buffer`; its first kilobyte is enough.

    Raises FormatError if it is not an archive, TruncatedError if it is too short.
    """
    head = bytes(byte_view(frame_buffer)[:MAX_HEAD])
    check_start(head)
    return FrameInfo.of(parse_frame(head, None))


def archive_info(file: BinaryIO) -> ArchiveInfo:
    """Return the description of the archives in `file`, from their headers; raises LlmzipError unless complete."""
    reader = Reader(file, payloads=False)
    short = reader.short_text()
    if short is not None:
        header = small.parse(short)[0]
        model = registry.title(header.number, header.model_id)
        memory = 0 if model == registry.NONE else registry.memory_of(header.number, header.model_id)
        need = layout.needed(header.size, model=memory)
        return ArchiveInfo(header.size, len(short), 1, 0 if model == registry.NONE else 1, (model,), need)
    frames = [FrameInfo.of(frame) for frame in reader]
    needed = [frame.model for frame in frames if frame.model != registry.NONE]
    names = tuple(dict.fromkeys(needed or [registry.NONE]))
    size, lanes = sum(frame.decompressed_size for frame in frames), max(frame.lanes for frame in frames)
    need = max(layout.needed(frame.decompressed_size, model=frame.model_bytes) for frame in frames)
    return ArchiveInfo(size, reader.position, len(frames), lanes, names, need)
