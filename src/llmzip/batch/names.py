"""Names of archives: those of what is in them, with a suffix."""

from __future__ import annotations

from urllib.parse import urlsplit

from llmzip.api.remote import is_url, without_secrets
from llmzip.errors import FileError

SUFFIX = ".lz"


def archive_name(name: str) -> str:
    """Return the name of the archive of a file."""
    return name + SUFFIX


def content_name(name: str) -> str:
    """Return the name of what is in an archive; raises FileError if its name does not tell."""
    if not name.endswith(SUFFIX) or last_part(name) == SUFFIX:
        raise FileError(name, f"does not end in {SUFFIX}, so the output has no name (use -o FILE, or -c)")
    return name.removesuffix(SUFFIX)


def path_of(name: str) -> str:
    """Return the path of a URL, with its host or bucket in front; other names stay as they are."""
    if not is_url(name):
        return name
    parts = urlsplit(without_secrets(name).rpartition("::")[2])
    return parts.netloc + parts.path


def last_part(name: str) -> str:
    """Return the name of a file or a URL without its folder."""
    return path_of(name).rstrip("/").rpartition("/")[2]
