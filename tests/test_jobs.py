"""Several files at once."""

from __future__ import annotations

import os
import signal
import sys
import threading

import helpers
import pytest
from texts import noise, words

from llmzip import cli
from llmzip.cli.directions import Compression
from llmzip.cli.runner import each


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working folder, and the codec of the tests."""
    monkeypatch.setitem(sys.modules, "llmzip.api.stream", helpers.codec())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def llmzip_(*args):
    with pytest.raises(SystemExit) as info:
        cli.cli(args, prog_name="llmzip")
    return info.value.code


@pytest.mark.parametrize("jobs", ["0", "2", "7"])
def test_archives_are_those_of_one_after_another(folder, jobs):
    for i in range(20):
        (folder / f"{i}.txt").write_bytes(words(100, i))
    names = [f"{i}.txt" for i in range(20)]
    assert llmzip_("compress", "-m", "test", *names) == 0
    archives = {name: (folder / f"{name}.lz").read_bytes() for name in names}
    assert llmzip_("compress", "-f", "-m", "test", "-j", jobs, *names) == 0
    assert {name: (folder / f"{name}.lz").read_bytes() for name in names} == archives
    assert llmzip_("test", "-j", jobs, *(f"{name}.lz" for name in names)) == 0
    assert llmzip_("decompress", "-f", "-j", jobs, "-r", ".") == 0
    assert all((folder / f"{i}.txt").read_bytes() == words(100, i) for i in range(20))


@pytest.mark.parametrize("jobs", [1, 3])
def test_failures_are_reported_in_the_order_of_the_files(capfd, jobs):
    def action(name):
        if name != "good":
            raise FileNotFoundError(2, os.strerror(2), name)

    names = [f"{i}" if i % 3 else "good" for i in range(50)]
    assert each(names, action, jobs=jobs) == 1
    expected = [f"llmzip: {name}: No such file or directory" for name in names if name != "good"]
    assert capfd.readouterr().err.splitlines() == expected


def test_as_many_as_asked_for_are_worked_on_at_once():
    barrier = threading.Barrier(3, timeout=20)
    assert each("abcdef", lambda _: barrier.wait(), jobs=3) == 0
    barrier = threading.Barrier(2, timeout=0.2)
    assert each("ab", lambda _: barrier.wait(), jobs=1) == 1


def test_standard_output_takes_one_after_another(folder, capfd):
    (folder / "a").write_bytes(b"a")
    assert llmzip_("compress", "-c", "-j", "2", "a") == 2
    assert "-j cannot be used with standard output" in capfd.readouterr().err


def test_each_file_has_its_share_of_the_threads(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    shares = {
        (jobs, threads): Compression(jobs=jobs, threads=threads)._threads
        for jobs in (1, 2, 3, 0, 100)
        for threads in (0, 5)
    }
    assert shares == {
        (1, 0): 0,
        (1, 5): 5,
        (2, 0): 4,
        (2, 5): 5,
        (3, 0): 2,
        (3, 5): 5,
        (0, 0): 1,
        (0, 5): 5,
        (100, 0): 1,
        (100, 5): 5,
    }


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_closed_pipe_ends_the_process_by_its_signal(folder, jobs):
    """Whichever thread meets it: only the main one may set signals."""
    (folder / "a").write_bytes(noise(300_000))
    os.mkfifo("pipe")
    process = helpers.start("compress", "-j", jobs, "-o", "pipe", "a")
    with open("pipe", "rb") as reader:
        reader.read(10)
    assert (process.communicate()[1], process.returncode) == (b"", -signal.SIGPIPE)
