"""Compress text without loss with a small recurrent language model."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from llmzip._version import __version__
from llmzip.errors import (
    ChecksumError,
    FileError,
    FormatError,
    HardwareError,
    LimitError,
    LlmzipError,
    ModelError,
    ModelMismatchError,
    SalvageError,
    TruncatedError,
)

if TYPE_CHECKING:
    from llmzip.api.file import LlmzipFile, open  # noqa: A004 - as in gzip, bz2 and lzma
    from llmzip.api.fsspec_plugin import register_fsspec
    from llmzip.api.incremental import Compressor, Decompressor
    from llmzip.api.info import ArchiveInfo, FrameInfo, archive_info, get_frame_info
    from llmzip.api.short import Codec, compress_many, decompress_many
    from llmzip.api.stream import compress, compress_stream, decompress, decompress_stream

__all__ = (
    "ArchiveInfo",
    "ChecksumError",
    "Codec",
    "Compressor",
    "Decompressor",
    "FileError",
    "FormatError",
    "FrameInfo",
    "HardwareError",
    "LimitError",
    "LlmzipError",
    "LlmzipFile",
    "ModelError",
    "ModelMismatchError",
    "SalvageError",
    "TruncatedError",
    "__version__",
    "archive_info",
    "compress",
    "compress_many",
    "compress_stream",
    "decompress",
    "decompress_many",
    "decompress_stream",
    "get_frame_info",
    "open",
    "register_fsspec",
)

_HOMES = {
    **dict.fromkeys(("compress", "compress_stream", "decompress", "decompress_stream"), "stream"),
    **dict.fromkeys(("Codec", "compress_many", "decompress_many"), "short"),
    **dict.fromkeys(("LlmzipFile", "open"), "file"),
    **dict.fromkeys(("Compressor", "Decompressor"), "incremental"),
    **dict.fromkeys(("ArchiveInfo", "FrameInfo", "archive_info", "get_frame_info"), "info"),
    "register_fsspec": "fsspec_plugin",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch and numba, or just time, when it is first used."""
    if name in _HOMES:
        return getattr(import_module(f"llmzip.api.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
