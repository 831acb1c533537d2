"""What is said about a failure, and whether to try again."""

from __future__ import annotations

import errno

from llmzip.api.remote import UnreachableError, without_secrets
from llmzip.container.format import INCOMPLETE
from llmzip.errors import ChecksumError, LlmzipError

HINTS = {
    errno.EEXIST: " (use -f to overwrite it)",
    errno.ENOSPC: " (free some space, or write elsewhere with -o)",
}
SALVAGE = " (decompress --salvage writes the undamaged frames)"
# What a network file system may say now, and not a moment later.
PASSING = {errno.EIO, errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.EREMOTEIO}


def subject(name: str, error: Exception) -> str:
    """Return the file that an error is about, without secrets: `name` unless it says another."""
    return without_secrets(str(getattr(error, "filename", None) or name))


def explanation(error: Exception) -> str:
    """Return what is wrong, and what to do, in one line."""
    if isinstance(error, LlmzipError):
        text = str(error)
        return text + SALVAGE if isinstance(error, ChecksumError) or text == INCOMPLETE else text
    if isinstance(error, MemoryError):
        # NumPy's subclass has other arguments than a hint.
        hint = error.args[0] if type(error) is MemoryError and error.args else "close other programs"
        return f"not enough memory ({hint})"
    if isinstance(error, OSError):
        return (error.strerror or str(error)) + HINTS.get(error.errno or 0, "")
    reason = str(error).partition("\n")[0]
    return f"internal error: {type(error).__name__}: {reason} (please report; LLMZIP_DEBUG=1 shows more)"


def passes(error: Exception) -> bool:
    """Return whether the same may succeed a moment later."""
    return isinstance(error, UnreachableError) or (isinstance(error, OSError) and error.errno in PASSING)
