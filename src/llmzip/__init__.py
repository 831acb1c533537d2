"""Compress text without loss with a small recurrent language model."""

from typing import TYPE_CHECKING, Any

from llmzip.errors import (
    ChecksumError,
    FileError,
    FormatError,
    HardwareError,
    LlmzipError,
    ModelError,
    SalvageError,
    TruncatedError,
)

if TYPE_CHECKING:
    from llmzip.codec import compress, compress_stream, decompress, decompress_stream

__version__ = "0.1.0"

__all__ = (
    # llmzip.errors
    "ChecksumError",
    "FileError",
    "FormatError",
    "HardwareError",
    "LlmzipError",
    "ModelError",
    "SalvageError",
    "TruncatedError",
    # llmzip.codec
    "compress",
    "compress_stream",
    "decompress",
    "decompress_stream",
)

_CODEC = frozenset(__all__[-4:])


def __getattr__(name: str) -> Any:
    """Import the codec, and with it torch and numba, when one of its functions is first used."""
    if name in _CODEC:
        from llmzip import codec

        return getattr(codec, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_CODEC})
