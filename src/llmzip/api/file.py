"""File objects that compress what is written to them, and decompress what is read: as gzip's, bz2's and lzma's.

Reading decodes a frame at a time. Where the file below is seekable, so is its content: only the frames that are read
from are decoded.
"""

from __future__ import annotations

import atexit
import builtins
import io
import os
import sys
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TextIO, cast, overload

from llmzip.api.buffers import Unpicklable, byte_view
from llmzip.api.remote import is_url, open_url, without_secrets
from llmzip.container.format import Frame
from llmzip.container.index import Index
from llmzip.container.reader import Reader
from llmzip.errors import FileError, LlmzipError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from llmzip.api.incremental import Compressor

BUFFER_SIZE = 1 << 17

# Files open for writing, and text files upon them. Those that nobody closes are closed before the interpreter takes
# itself apart: to compress the last frame, it must be whole. Functions that were registered later run before.
_unclosed: weakref.WeakSet[LlmzipFile | io.TextIOWrapper] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for file in list(_unclosed):
        try:
            file.close()
        except Exception as error:  # the others are to be closed, too
            sys.excepthook(type(error), error, error.__traceback__)


Name = str | bytes | os.PathLike[str] | os.PathLike[bytes]


class _Content(io.RawIOBase):
    """The content of the archives in `file` from where it stands."""

    def __init__(self, file: BinaryIO, **options: Any):
        from llmzip.api.frames import FrameDecoder

        self._file, self._decoder = file, FrameDecoder(**options)
        self._base = file.tell() if file.seekable() else 0
        self._frames: Iterator[Frame] = iter(Reader(file))
        self._index: Index | None = None
        self._position = 0
        self._start, self._bytes = 0, b""  # of the frame at hand
        self._failure: LlmzipError | None = None  # what comes next cannot be read: it is not the end

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file.seekable()

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        while self._position >= self._start + len(self._bytes):
            if not self._advance():
                return 0
        at = self._position - self._start
        view = byte_view(buffer)
        size = min(len(view), len(self._bytes) - at)
        view[:size] = self._bytes[at : at + size]
        self._position += size
        return size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if not self.seekable():
            raise io.UnsupportedOperation("the file that the archive is in cannot seek")
        if whence not in (io.SEEK_SET, io.SEEK_CUR, io.SEEK_END):
            raise ValueError(f"invalid whence ({whence}, should be 0, 1 or 2)")
        if whence == io.SEEK_CUR:
            offset += self._position
        if self._index is None:
            place = self._file.tell()
            self._index = Index(self._file, self._base)
            self._file.seek(place)  # until another frame is wanted, the reader goes on here
        if whence == io.SEEK_END:
            offset += self._index.size
        self._position = max(0, min(offset, self._index.size))
        if not self._start <= self._position <= self._start + len(self._bytes):
            number, self._start = self._index.find(self._position)
            self._bytes, self._failure = b"", None
            self._frames = self._index.frames(number)
        return self._position

    def close(self) -> None:
        self._bytes = b""
        super().close()

    def _advance(self) -> bool:
        """Decode the next frame and return whether there is one."""
        if self._failure:
            raise self._failure
        try:
            frame = next(self._frames, None)
            if frame is None:
                return False
            content = self._decoder.decode(frame)
        except LlmzipError as error:
            self._failure = error
            raise
        self._start += len(self._bytes)
        self._bytes = content
        return True


class LlmzipFile(Unpicklable, io.BufferedIOBase):
    """A compressed file, open for binary reading or writing.

    Args:
        filename: a path, a URL to read from, or a file object that is read from or written to where it stands.
        mode: "r", "w", "x" (a new file only) or "a" (one more archive at the end), each also with "b".
        model: a shipped model's name or a model file; None for the default, or for the one that the archive names.
        threads: for the network; 0 for one per core.
        frame_size: for writing, see :func:`llmzip.compress_stream`.
        memlimit: for reading, see :func:`llmzip.decompress_stream`.
        closefd: close a file object that was given together with this one.

    Raises LlmzipError where something is wrong with archive or model, OSError as :func:`open`.
    """

    def __init__(
        self,
        filename: Name | BinaryIO,
        mode: str = "r",
        *,
        model: str | None = None,
        threads: int = 0,
        frame_size: int | None = None,
        memlimit: int | None = None,
        closefd: bool = False,
    ):
        self._file: BinaryIO | None = None
        self._close_file = closefd
        self._reader: io.BufferedReader | None = None
        self._compressor: Compressor | None = None
        self._written = 0
        kind = mode.replace("b", "", 1)
        if kind not in ("r", "w", "x", "a"):
            raise ValueError(f"invalid mode: {mode!r}")
        if kind != "r":
            from llmzip.api.incremental import Compressor

            # Before the file is opened: a model that is missing must not empty it.
            self._compressor = Compressor(model=model, threads=threads, frame_size=frame_size)
        if isinstance(filename, str) and is_url(filename):
            if kind != "r":
                raise FileError(without_secrets(filename), "is a URL: it can only be opened for reading")
            self._file = open_url(filename, ahead=False)
            self._close_file = True
        elif isinstance(filename, str | bytes | os.PathLike):
            self._file = cast(BinaryIO, builtins.open(filename, kind + "b"))  # noqa: SIM115 - close does
            self._close_file = True
        elif hasattr(filename, "read" if kind == "r" else "write"):
            self._file = filename
        else:
            raise TypeError("filename must be a path or a file object")
        self.mode = "rb" if kind == "r" else "wb"
        if kind != "r":
            _unclosed.add(self)
        if kind == "r":
            content = _Content(self._file, model=model, threads=threads, memlimit=memlimit)
            self._reader = io.BufferedReader(content, BUFFER_SIZE)

    @property
    def name(self) -> Any:
        """The name of the file below."""
        return self._open_file().name

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._file is None

    def close(self) -> None:
        """Write the end of the archive, and close the file below if it is this one's."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            if self._compressor:
                file.write(self._compressor.flush())
        finally:
            self._compressor = None
            if self._reader:
                self._reader.close()
            if self._close_file:
                file.close()

    def fileno(self) -> int:
        """Return the descriptor of the file below."""
        return self._open_file().fileno()

    def readable(self) -> bool:
        """Return whether the file is open for reading."""
        self._open_file()
        return self._reader is not None

    def writable(self) -> bool:
        """Return whether the file is open for writing."""
        self._open_file()
        return self._compressor is not None

    def seekable(self) -> bool:
        """Return whether the content is seekable."""
        return self.readable() and self._content().seekable()

    def peek(self, size: int = -1) -> bytes:
        """Return some bytes without advancing, none only at the end."""
        return self._content().peek(size)

    def read(self, size: int | None = -1) -> bytes:
        """Read `size` bytes, all that are left if it is negative or None."""
        return self._content().read(size)

    def read1(self, size: int = -1) -> bytes:
        """Read up to `size` bytes with as little work as possible."""
        return self._content().read1(BUFFER_SIZE if size < 0 else size)

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill `buffer` and return the number of bytes read."""
        return self._content().readinto(buffer)

    def readinto1(self, buffer: WriteableBuffer) -> int:
        """Fill `buffer` with at most one read of the file below; return the number of bytes read."""
        return self._content().readinto1(buffer)

    def readline(self, size: int | None = -1) -> bytes:
        """Read a line, its end included."""
        return self._content().readline(size)

    def write(self, data: ReadableBuffer) -> int:
        """Compress `data`, and return its size; what of a frame is not full yet is written later."""
        if not self.writable():
            raise io.UnsupportedOperation("the file is not open for writing")
        file, compressor = self._open_file(), cast("Compressor", self._compressor)
        view = byte_view(data)
        file.write(compressor.compress(view))
        self._written += len(view)
        return len(view)

    def flush(self) -> None:
        """Flush the file below; what waits for the end of its frame goes on waiting."""
        file = self._open_file()
        if self._compressor:
            file.flush()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte of the content, at most to its end; return where that is."""
        return self._content().seek(offset, whence)

    def tell(self) -> int:
        """Return the position in the content."""
        return self._content().tell() if self.readable() else self._written

    def _open_file(self) -> BinaryIO:
        if self._file is None:
            raise ValueError("I/O operation on closed file")
        return self._file

    def _content(self) -> io.BufferedReader:
        self._open_file()
        if self._reader is None:
            raise io.UnsupportedOperation("the file is not open for reading")
        return self._reader


@overload
def open(  # noqa: A001 - as in gzip, to be used as llmzip.open
    filename: Name | BinaryIO,
    mode: Literal["r", "rb", "w", "wb", "x", "xb", "a", "ab"] = "rb",
    *,
    model: str | None = None,
    threads: int = 0,
    frame_size: int | None = None,
    memlimit: int | None = None,
    encoding: None = None,
    errors: None = None,
    newline: None = None,
) -> LlmzipFile: ...


@overload
def open(  # noqa: A001
    filename: Name | BinaryIO,
    mode: Literal["rt", "wt", "xt", "at"],
    *,
    model: str | None = None,
    threads: int = 0,
    frame_size: int | None = None,
    memlimit: int | None = None,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
) -> TextIO: ...


@overload
def open(  # noqa: A001
    filename: Name | BinaryIO,
    mode: str,
    *,
    model: str | None = None,
    threads: int = 0,
    frame_size: int | None = None,
    memlimit: int | None = None,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
) -> LlmzipFile | TextIO: ...


def open(  # noqa: A001
    filename: Name | BinaryIO,
    mode: str = "rb",
    *,
    model: str | None = None,
    threads: int = 0,
    frame_size: int | None = None,
    memlimit: int | None = None,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
) -> LlmzipFile | TextIO:
    """Open a compressed file in binary or, with a "t" in `mode`, in text mode.

    Arguments as for :class:`LlmzipFile` and, in text mode, :class:`io.TextIOWrapper`.
    """
    text = "t" in mode
    if text and "b" in mode:
        raise ValueError(f"invalid mode: {mode!r}")
    if not text and (encoding, errors, newline) != (None, None, None):
        raise ValueError("encoding, errors and newline are for text mode")
    options = {"model": model, "threads": threads, "frame_size": frame_size, "memlimit": memlimit}
    file = LlmzipFile(filename, mode.replace("t", "", 1), **options)  # type: ignore[arg-type] # as declared
    if not text:
        return file
    wrapper = io.TextIOWrapper(file, io.text_encoding(encoding), errors, newline)
    if file.writable():
        # The wrapper holds text back, so it is what must be closed.
        _unclosed.discard(file)
        _unclosed.add(wrapper)
    return wrapper
