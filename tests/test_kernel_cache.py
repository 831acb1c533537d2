"""The cache of compiled kernels: whom it trusts, and that nothing wrong with it breaks a run."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest
from kernel_programs import kernels, run

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make files of another user")
OTHER_USER = 12345


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The folder in which the cache is, after a first run."""
    assert run(tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache"))[1] == "0 hits"
    return tmp_path / "cache" / "llmzip"


def again(tmp_path: Path, **options: str) -> list[str]:
    return run(tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache"), **options)


def folders(cache: Path) -> list[Path]:
    """Return the cache's own folders, from the top."""
    return [cache, *sorted(path for path in cache.rglob("*") if path.is_dir())]


@pytest.mark.parametrize("umask", ["0o000", "0o022", "0o077"])
def test_folders_and_files_are_for_their_user_only(tmp_path: Path, umask: str) -> None:
    again(tmp_path, before=f"import os; os.umask({umask})")
    cache = tmp_path / "cache" / "llmzip"
    assert len(folders(cache)) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders(cache)} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in kernels(cache)} == {0o600}


@pytest.mark.parametrize("level", range(3))
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_can_write_to_is_not_used(tmp_path: Path, cache: Path, level: int, mode: int) -> None:
    folders(cache)[level].chmod(mode)
    number, hits, problems = again(tmp_path)
    assert (number, hits) == ("42", "0 hits")
    assert "can be written to by other users" in problems


@ROOT
@pytest.mark.parametrize("level", range(3))
def test_a_folder_of_another_user_is_not_used(tmp_path: Path, cache: Path, level: int) -> None:
    os.chown(folders(cache)[level], OTHER_USER, OTHER_USER)
    assert again(tmp_path)[:2] == ["42", "0 hits"]


@pytest.mark.parametrize("level", range(3))
def test_a_link_in_the_place_of_a_folder_is_not_used(tmp_path: Path, cache: Path, level: int) -> None:
    folder = folders(cache)[level]
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert again(tmp_path)[:2] == ["42", "0 hits"]


@pytest.mark.parametrize("kind", ["writable", "link", "pipe", "folder"])
def test_a_file_that_others_may_have_made_is_not_used(tmp_path: Path, cache: Path, kind: str) -> None:
    (file,) = kernels(cache)
    if kind == "writable":
        file.chmod(0o666)
    else:
        file.rename(tmp_path / "elsewhere")
        {
            "link": lambda: file.symlink_to(tmp_path / "elsewhere"),
            "pipe": lambda: os.mkfifo(file),
            "folder": file.mkdir,
        }[kind]()
    assert again(tmp_path)[:2] == ["42", "0 hits"]


def test_every_kind_of_damage_is_found_and_mended(tmp_path: Path, cache: Path) -> None:
    (file,) = kernels(cache)
    sound = file.read_bytes()
    flipped = bytearray(sound)
    flipped[len(flipped) // 2] ^= 16
    for damaged in (b"", sound[:31], sound[:-1], sound + b"x", bytes(flipped), b"\0" * len(sound)):
        file.write_bytes(damaged)
        number, hits, problems = again(tmp_path)
        assert (number, hits) == ("42", "0 hits")
        assert "is damaged" in problems
        assert again(tmp_path) == ["42", "1 hits", "[]"]


def test_sound_files_that_hold_something_else_are_compiled_afresh(tmp_path: Path, cache: Path) -> None:
    (file,) = kernels(cache)
    again(tmp_path, NUMBA_BOUNDSCHECK="1")
    others = [other for other in kernels(cache) if other != file]
    shutil.copy(others[0], file)
    number, hits, problems = again(tmp_path)
    assert (number, hits) == ("42", "0 hits")
    assert "holds another kernel" in problems


def test_settings_of_the_compiler_have_kernels_of_their_own(tmp_path: Path, cache: Path) -> None:
    assert again(tmp_path, NUMBA_BOUNDSCHECK="1")[:2] == ["42", "0 hits"]
    assert len(kernels(cache)) == 2
    assert again(tmp_path, NUMBA_BOUNDSCHECK="1")[:2] == ["42", "1 hits"]


CALLS_NOBODY_KNOWS = """
from llmzip.kernel_cache import KernelCache
real = KernelCache.reduced
KernelCache.reduced = lambda self, result: (["no_such_function"], real(self, result)[1])
"""


def test_code_that_calls_what_the_process_does_not_have_is_compiled_afresh(tmp_path: Path) -> None:
    """LLVM would end the process."""
    again(tmp_path, before=CALLS_NOBODY_KNOWS)
    number, hits, problems = again(tmp_path)
    assert (number, hits) == ("42", "0 hits")
    assert "calls no_such_function" in problems


LOADED_LATE = """
from numba.core.cpu import CPUContext
from llmzip import kernel_cache
ready = []
real, refresh = kernel_cache.address_of_symbol, CPUContext.refresh
kernel_cache.address_of_symbol = lambda name: real(name) if ready else None
CPUContext.refresh = lambda self: (ready.append(1), refresh(self))
"""


def test_code_that_calls_what_numba_has_not_loaded_yet_loads_it(tmp_path: Path, cache: Path) -> None:
    assert kernels(cache)
    assert again(tmp_path, before=LOADED_LATE) == ["42", "1 hits", "[]"]


NO_WRITING = """
import os
real = os.open
def refuse(path, flags, *rest, **options):
    if flags & os.O_CREAT:
        raise OSError({number}, os.strerror({number}))
    return real(path, flags, *rest, **options)
os.open = refuse
"""


@pytest.mark.parametrize("number", [28, 30])  # no space left, read-only file system
def test_a_cache_that_cannot_be_written_is_used_and_breaks_nothing(tmp_path: Path, cache: Path, number: int) -> None:
    before = NO_WRITING.format(number=number)
    assert again(tmp_path, before=before) == ["42", "1 hits", "[]"]
    shutil.rmtree(cache)
    assert again(tmp_path, before=before)[:2] == ["42", "0 hits"]
    assert not kernels(tmp_path)


@ROOT
def test_a_warm_cache_of_root_is_used_by_others(tmp_path: Path, cache: Path) -> None:
    """As in the image of a container: made by root, read-only for who runs it."""
    for folder in (tmp_path, tmp_path.parent, *folders(cache), tmp_path / "cache"):
        folder.chmod(0o755)
    for file in kernels(cache):
        file.chmod(0o644)
    assert again(tmp_path)[1] == "1 hits"


def test_below_a_file_no_folder_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    assert again(tmp_path)[:2] == ["42", "0 hits"]
