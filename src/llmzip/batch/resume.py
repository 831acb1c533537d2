"""What is there already: whether an output is that of its source, as far as headers, sizes and times can tell.

Nothing is decoded, and no byte of the content compared: `llmzip test` does the former.
"""

from __future__ import annotations

from llmzip.api.info import archive_info
from llmzip.api.remote import open_file, status
from llmzip.container.format import MAGIC
from llmzip.errors import FileError, LlmzipError


def is_current(source: str, target: str) -> bool:
    """Return whether `target` can stay; one of both is the archive of the other. Raises OSError or FileError.

    It must not be older than the source; the archive must be complete, all heads of frames and the list of frames in
    order, and hold as many bytes as the file at the other end has.
    """
    there = status(target)
    if there is None:
        return False
    read = status(source)
    if read is None or (there.modified or 0) < (read.modified or 0):
        return False
    for archive, size in ((target, read.size), (source, there.size)):
        if is_archive(archive):
            try:
                with open_file(archive, ahead=False) as file:
                    return archive_info(file).decompressed_size == size
            except FileError:
                raise  # it could not be read
            except LlmzipError:
                return False
    return False


def is_archive(name: str) -> bool:
    """Return whether a file is there and begins as an archive does."""
    if status(name) is None:
        return False
    with open_file(name, ahead=False) as file:
        return file.read(len(MAGIC)) == MAGIC
