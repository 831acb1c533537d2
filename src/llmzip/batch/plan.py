"""Which files to work on: folders, patterns and lists to files, and files to the names of their outputs."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from llmzip.api.remote import check_inside, find, has_magic, is_folder, is_url, open_file, status
from llmzip.batch.names import last_part, path_of
from llmzip.errors import FileError

Failed = Callable[[str, Exception], None]


@dataclass(frozen=True)
class Input:
    """A file to work on: its name, its path in an output folder, its size in bytes if that is known."""

    name: str
    below: str
    size: int | None = None


@dataclass(frozen=True)
class Item:
    """A file to work on and where the output goes; None for nowhere."""

    source: str
    target: str | None
    size: int | None = None


def inputs(
    names: Iterable[str], failed: Failed, *, wanted: Callable[[str], bool] | None = None, listed: bool = False
) -> Iterator[Input]:
    """Yield the files that `names` stand for; what is wrong with one is told to `failed`, and the others follow.

    A URL with *, ** or ? stands for the files that it fits. With `wanted`, a folder stands for the regular files in and
    below it that this is true for; links are not followed. These files keep their paths below the folder; others
    have no more than their names there or, if they come from a list, the whole path.
    """
    for name in names:
        try:
            if is_url(name) and has_magic(name):
                yield from _fitting(name)
            elif wanted is not None and is_url(name) and is_folder(name):
                yield from (Input(file.url, file.below, file.size) for file in find(name) if wanted(file.url))
            elif wanted is not None and os.path.isdir(name):
                yield from _below(name, wanted, failed)
            else:
                below = path_of(name).lstrip("/") if listed else last_part(name)
                if listed:
                    check_inside(below, name)
                yield Input(name, below)
        except (FileError, OSError) as error:
            failed(name, error)


def _fitting(pattern: str) -> Iterator[Input]:
    found = find(pattern)
    if not found and status(pattern) is None:  # it may be a name that looks like a pattern
        raise FileError(pattern, "fits no file")
    yield from (Input(file.url, file.below, file.size) for file in found)
    if not found:
        yield Input(pattern, last_part(pattern))


def _below(folder: str, wanted: Callable[[str], bool], failed: Failed) -> Iterator[Input]:
    """Yield the wanted files in and below `folder`, sorted; links are not followed."""
    for parent, folders, names in os.walk(folder, onerror=lambda error: failed(error.filename, error)):
        folders.sort()
        for name in sorted(names):
            path, size = os.path.join(parent, name), None
            try:
                found = os.lstat(path)
                meant, size = stat.S_ISREG(found.st_mode) and wanted(path), found.st_size
            except OSError:
                meant = True  # the action reports what is wrong with it
            if meant:
                yield Input(path, os.path.relpath(path, folder), size)


def names_in(list_name: str) -> list[str]:
    """Return the names in a list: one a line or, if there is a zero byte in it, each with a zero byte at its end."""
    with open_file(list_name) as file:
        data = file.read()
    separator = b"\0" if b"\0" in data else b"\n"
    names = (name.removesuffix(b"\r") if separator == b"\n" else name for name in data.split(separator))
    return [os.fsdecode(name) for name in names if name]


def items(
    files: Iterable[Input], derive: Callable[[str], str], output_dir: str | None, failed: Failed
) -> Iterator[Item]:
    """Yield each file with its output: beside it or, in `output_dir`, at its path there."""
    taken: set[str] = set()
    for file in files:
        try:
            target = derive(file.name) if output_dir is None else joined(output_dir, derive(file.below))
            if target in taken:
                raise FileError(file.name, f"has the same output as a file before it: {target}")
        except FileError as error:
            failed(file.name, error)
            continue
        taken.add(target)
        yield Item(file.name, target, file.size)


def joined(folder: str, below: str) -> str:
    """Return the name of what lies at the path `below` a folder, which may be a URL."""
    return f"{folder.rstrip('/')}/{below}" if is_url(folder) else os.path.join(folder, below)


def make_folder(target: str) -> None:
    """Make the folder of a local file, if there is none."""
    folder = os.path.dirname(target)
    if folder and not is_url(target):
        os.makedirs(folder, exist_ok=True)


def total(items: Sequence[Item]) -> int:
    """Return the bytes of all files whose size is known."""
    return sum(item.size or 0 for item in items)
