"""Teach other libraries to read and write compressed files. Nothing is registered by importing llmzip."""

from __future__ import annotations

from typing import BinaryIO

from llmzip.api.file import LlmzipFile


def register_fsspec(*, force: bool = False) -> None:
    """Make fsspec open files with ``compression="llmzip"``, and those that end in .lz with ``compression="infer"``.

    A second call changes nothing; `force` replaces another registration of the name and the suffix.
    """
    from fsspec.compression import compr, register_compression

    if compr.get("llmzip") is not _open:
        register_compression("llmzip", _open, ["lz"], force=force)


def _open(infile: BinaryIO, mode: str = "rb", **options: object) -> LlmzipFile:
    return LlmzipFile(infile, mode, **options)  # type: ignore[arg-type] # whatever the caller of fsspec gave
