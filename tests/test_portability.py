"""Systems that lack what Linux has: macOS and others. The calls are taken away in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from helpers import ENVIRONMENT
from texts import words

WITHOUT_LINUX = """
import os, signal, sys
for name in ("sched_getaffinity", "O_TMPFILE", "O_PATH", "copy_file_range", "memfd_create", "sendfile", "splice",
             "posix_fadvise", "posix_fallocate", "fdatasync", "getxattr", "listxattr", "setxattr", "pipe2", "eventfd"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGPOLL", "SIGPWR", "SIGSTKFLT"):
    if hasattr(signal, name):
        delattr(signal, name)
from llmzip import atomic_output, cli
atomic_output.DESCRIPTORS = "/nosuch"
atomic_output._renameat2 = lambda *_: False
sys.argv[0] = "llmzip"
cli.main()
"""


def test_files_go_there_and_back_without_what_only_linux_has(tmp_path: Path) -> None:
    text = words(200)
    (tmp_path / "a.txt").write_bytes(text)

    def run(*args: str) -> subprocess.CompletedProcess[bytes]:
        compiled = {key: value for key, value in ENVIRONMENT.items() if key != "NUMBA_DISABLE_JIT"}
        command = [sys.executable, "-c", WITHOUT_LINUX, *args]
        return subprocess.run(command, env=compiled, cwd=tmp_path, capture_output=True, check=True)

    run("compress", "--rm", "a.txt")
    assert not (tmp_path / "a.txt").exists()
    run("decompress", "-f", "a.txt.lz")
    assert (tmp_path / "a.txt").read_bytes() == text
    run("compress", "-m", "none", "-f", "a.txt")
    assert run("decompress", "-c", "a.txt.lz").stdout == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "a.txt.lz"]
