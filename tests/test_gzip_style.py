"""The command line without a command, as gzip's and zstd's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import COMMAND, ENVIRONMENT, start
from texts import words

from llmzip.cli import COMMANDS
from llmzip.cli.gzip_style import translated

TEXT = words(300)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("args", "meant"),
    [
        ("-d", "decompress"),
        ("-d -c x.lz", "decompress -c x.lz"),
        ("-dc x.lz", "decompress -c x.lz"),
        ("-cd x.lz", "decompress -c x.lz"),
        ("-dkf x.lz", "decompress -k -f x.lz"),
        ("x.lz -d", "x.lz -d"),  # there is no such file: it may be a command misspelt
        ("-k x", "compress -k x"),
        ("-c", "compress -c"),
        ("-vo out x", "compress -v -o out x"),
        ("-o -d x", "compress -o -d x"),  # the name of a file
        ("-o-d x", "compress -o-d x"),
        ("-T2d x", "compress -T2d x"),  # a wrong number, not an option
        ("-m none -d x", "decompress -m none x"),
        ("-t x.lz", "test x.lz"),
        ("-tv x.lz", "test -v x.lz"),
        ("-tkcf x.lz", "test x.lz"),
        ("-l x.lz", "list x.lz"),
        ("--decompress --stdout x.lz", "decompress --stdout x.lz"),
        ("--test x.lz", "test x.lz"),
        ("-z -d -z x", "compress x"),  # the last one holds
        ("-- -d", "compress -- -d"),
        ("-d -- -t", "decompress -- -t"),
        ("-", "compress -"),
        ("-d -", "decompress -"),
        ("--help", "--help"),
        ("-V", "-V"),
        ("compress -d", "compress -d"),
        ("misspelt", "misspelt"),
    ],
)
def test_options_stand_for_commands(args, meant):
    assert translated(args.split(), COMMANDS) == meant.split()


def test_a_file_is_compressed_and_a_misspelt_command_is_not():
    Path("notes.txt").write_bytes(TEXT)
    assert translated(["notes.txt", "-k"], COMMANDS) == ["compress", "notes.txt", "-k"]
    process = start("notes.txt")
    assert process.wait() == 0
    assert start("-dc", "notes.txt.lz").communicate()[0] == TEXT
    process = start("comprss", "notes.txt")
    assert b"No such command 'comprss'" in process.communicate()[1]
    assert process.returncode == 2


def test_without_arguments_a_pipe_is_compressed():
    done = subprocess.run(COMMAND, env=ENVIRONMENT, input=TEXT, capture_output=True, check=True)
    back = subprocess.run([*COMMAND, "-d"], env=ENVIRONMENT, input=done.stdout, capture_output=True, check=True)
    assert back.stdout == TEXT


@pytest.mark.skipif(shutil.which("tar") is None, reason="tar is not installed")
def test_tar_uses_it(folder):
    program = folder / "llmzip"
    program.write_text("#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in COMMAND) + ' "$@"\n')
    program.chmod(0o755)
    (folder / "docs").mkdir()
    (folder / "docs" / "a.txt").write_bytes(TEXT)
    (folder / "out").mkdir()
    for args in (["-cf", "x.tar.lz", "docs"], ["-xf", "x.tar.lz", "-C", "out"]):
        subprocess.run(["tar", "-I", str(program), *args], env={**ENVIRONMENT, "PATH": "/usr/bin:/bin"}, check=True)
    assert (folder / "out" / "docs" / "a.txt").read_bytes() == TEXT
