"""Fatal signals: nothing is left, and the process ends by the signal."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import COMMAND, ENVIRONMENT, start, written_so_far
from texts import noise

from llmzip.cli.signals import FATAL


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("number", FATAL, ids=lambda number: number.name)
@pytest.mark.parametrize("force", [False, True])
def test_signals_leave_nothing_half_written(folder, number, force):
    if force:
        Path("out.lz").write_bytes(b"before")
    process = start("compress", *(["-f"] if force else []), "-o", "out.lz", stdin=subprocess.PIPE)
    process.stdin.write(noise(200_000))
    process.stdin.flush()
    deadline = time.monotonic() + 20
    while not written_so_far(process, folder):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate()
    assert (process.returncode, err) == (-number, b"")  # which a shell sees, too
    assert os.listdir() == (["out.lz"] if force else [])


def test_an_interrupted_loop_of_a_shell_ends(folder):
    loop = 'for i in 1 2 3; do echo "round $i"; "$@"; done; echo after'
    command = ["bash", "-c", loop, "bash", *COMMAND, "compress", "-o", "out.lz"]
    process = subprocess.Popen(
        command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    process.stdin.write(noise(200_000))
    process.stdin.flush()
    deadline = time.monotonic() + 20
    child = None
    while not (child and written_so_far(child, folder)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        child = SimpleNamespace(pid=children[0]) if children else None
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does for Ctrl-C
    out, _ = process.communicate()
    assert out == b"round 1\n"
    assert process.returncode == -signal.SIGINT


def test_ignored_signals_stay_ignored():
    process = start("compress", stdin=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.stdin.write(noise(20_000))  # less than a pipe holds
    process.stdin.flush()
    process.stdout.read(1000)
    process.send_signal(signal.SIGHUP)
    process.communicate()
    assert process.returncode == 0
