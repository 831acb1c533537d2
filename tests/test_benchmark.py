import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from helpers import COMMAND, ENVIRONMENT
from texts import words

from llmzip import cli
from llmzip.errors import LlmzipError
from llmzip.tools import benchmark, benchmark_plot
from llmzip.tools.benchmark import Result, Tool

PYTHON = shlex.quote(sys.executable)
COPY = Tool("copy", "cat", "cat")
FILES = Tool("files", "cp {source} {packed}", "cp {packed} {back}", ".suffix")
HALF = Tool("half", "head -c 500", "cat")
SLOW = Tool(
    "slow", f"{PYTHON} -c 'import shutil, sys; x = bytearray(50 << 20); sys.stdout.write(sys.stdin.read())'", "cat"
)


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "text"
    path.write_bytes(words(200))
    return path


@pytest.fixture
def run(monkeypatch, capfd):
    """Run the command with copying tools in the place of compressors."""
    monkeypatch.setattr(benchmark, "OTHERS", (FILES, Tool("nobody has this", "no-such-program", "")))
    monkeypatch.setattr(
        benchmark, "llmzip_tool", lambda model, threads: Tool(f"llmzip {model} {threads}", "cat", "cat")
    )

    def call(*args):
        with pytest.raises(SystemExit) as info:
            cli.cli(["bench", *args], prog_name="llmzip")
        out, err = capfd.readouterr()
        return info.value.code, out, err

    return call


def test_every_tool_is_measured_with_every_file(text):
    other = text.with_name("other")
    other.write_bytes(b"x" * 1000)
    told = []
    results = list(benchmark.bench([str(text), str(other)], [COPY, FILES], told.append))
    assert [(row.file, row.tool) for row in results] == [(str(f), t) for f in (text, other) for t in ("copy", "files")]
    assert all(row.size == row.packed and row.bits == 8 for row in results)
    assert all(row.pack_speed > 0 and row.unpack_speed > 0 for row in results)
    assert len(told) == 4
    assert sorted(os.listdir()) == ["other", "text"]


def test_memory_is_that_of_the_tool(text):
    (row,) = benchmark.bench([str(text)], [SLOW], lambda _: None)
    assert 50 < row.pack_memory < 120
    assert row.unpack_memory < 20


def test_what_does_not_come_back_is_an_error(text):
    with pytest.raises(LlmzipError, match="half does not restore"):
        list(benchmark.bench([str(text)], [HALF], lambda _: None))
    with pytest.raises(LlmzipError, match=r"broken failed: .*No such file"):
        list(benchmark.bench([str(text)], [Tool("broken", "cat", "cat nosuch")], lambda _: None))
    empty = text.with_name("empty")
    empty.touch()
    with pytest.raises(LlmzipError, match="nothing to measure"):
        list(benchmark.bench([str(empty)], [COPY], lambda _: None))


@pytest.mark.parametrize("tool", [tool for tool in benchmark.OTHERS if tool.installed], ids=lambda tool: tool.name)
def test_the_tools_that_are_installed_restore_a_file(text, tool):
    text.write_bytes(words(2000))  # zpaq's archives have a kilobyte of their own
    (row,) = benchmark.bench([str(text)], [tool], lambda _: None)
    assert row.packed < row.size


def test_totals_are_of_bytes_and_seconds():
    rows = [Result("a", "x", 1000, 100, 1, 2, 5, 6), Result("b", "x", 3000, 500, 3, 1, 4, 7)]
    (total,) = benchmark.totals(rows)
    assert total == Result("all 2 files", "x", 4000, 600, 4, 3, 5, 7)
    assert (total.bits, total.pack_speed) == (1.2, 1.0)


def test_the_command_writes_a_table(run, text):
    code, out, err = run("text", "-m", "one", "-m", "two", "-T", "3")
    assert (code, err) == (0, "")
    head, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if "|" in line]
    assert head[:4] == ["file", "tool", "bytes", "bits/byte"]
    size = str(text.stat().st_size)
    assert [row[:4] for row in rows[1:]] == [
        ["text", name, size, "8.000"] for name in ("llmzip one 3", "llmzip two 3", "files")
    ]
    assert "Python" in out


def test_the_command_writes_json_and_plots(run, text):
    shutil.copy(text, "other")
    code, out, _ = run("text", "other", "--json", "--plot", "a.svg")
    assert code == 0
    rows = json.loads(out)["results"]
    assert [row["file"] for row in rows[::2]] == ["text", "other", "all 2 files"]
    assert rows[0]["bits_per_byte"] == 8
    assert "<svg" in Path("a.svg").read_text()
    assert run("text", "--plot", "a.png")[0] == 0
    assert Path("a.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.usefixtures("text")
def test_errors_of_the_command(run, monkeypatch):
    code, out, err = run("missing", "text", ".")
    assert code == 1
    assert "llmzip: missing: No such file or directory\n" in err
    assert "llmzip: .: is a directory (give its files)\n" in err
    assert "8.000" in out
    assert run()[0] == 2
    assert run("text", "--plot", "a.pdf")[0] == 2
    shutil.copy("text", "b.svg")
    assert run("text", "--plot", "b.svg") == (1, "", "llmzip: b.svg: exists already (use -f to overwrite it)\n")
    assert run("text", "--plot", "b.svg", "-f")[0] == 0
    code, _, err = run("text", "--plot", "nosuch/a.png")
    assert code == 1
    assert "No such file or directory" in err
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'llmzip[plot]'" in run("text", "--plot", "a.png")[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_leave_neither_files_nor_programs(text, number):
    scratch = text.parent / "scratch"
    scratch.mkdir()
    environment = {**ENVIRONMENT, "TMPDIR": str(scratch)}
    process = subprocess.Popen([*COMMAND, "bench", "text"], env=environment, stdout=-1, stderr=-1)
    deadline = time.monotonic() + 20
    while not list(scratch.glob("*/packed")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    assert process.communicate(timeout=20) == (b"", b"")
    assert process.returncode == -number
    assert list(scratch.iterdir()) == []


def test_names_in_a_plot_keep_their_distance():
    heights = benchmark_plot._spread([1.0, 2.0, 2.001, 2.002, 2.5])
    assert all(b - a >= 0.09 for a, b in pairwise(heights))
    assert heights[2] == pytest.approx(2.001)


@pytest.mark.slow
def test_llmzip_itself_is_measured(text):
    (row,) = benchmark.bench([str(text)], [benchmark.llmzip_tool(threads=1)], lambda _: None)
    assert row.packed < row.size
    assert row.pack_memory > 100
