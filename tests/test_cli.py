import errno
import importlib
import io
import json
import os
import pty
import re
import signal
import stat
import subprocess
import sys
import termios
import threading
from pathlib import Path
from typing import NamedTuple

import click
import helpers
import pytest
from helpers import COMMAND, ENVIRONMENT, start
from texts import noise, words

import llmzip
from llmzip import cli

TEXT = words(300)


class Result(NamedTuple):
    code: int
    out: bytes
    err: str


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working folder, in which no temporary file may be left."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    assert [name for name in os.listdir(folder) if name.startswith(".llmzip")] == []


@pytest.fixture(params=["deflate", "model"])
def llmzip_(request, tmp_path, monkeypatch, capfdbinary):
    """Run the command line in this process, with the codec of the tests and with the real one."""
    options = []
    if request.param == "deflate":
        monkeypatch.setitem(sys.modules, "llmzip.api.stream", helpers.codec())
    else:
        request.getfixturevalue("tiny_file")
        monkeypatch.setattr(importlib.import_module("llmzip.api.stream"), "FRAME_BYTES", helpers.FRAME_BYTES)
        options = ["-m", "tiny"]

    def run(command, *args, stdin=b""):
        extra = options if command == "compress" and "-m" not in args else []
        (tmp_path / "stdin").write_bytes(stdin)
        capfdbinary.readouterr()
        with open(tmp_path / "stdin") as file:
            monkeypatch.setattr(sys, "stdin", file)
            with pytest.raises(SystemExit) as info:
                cli.cli([command, *extra, *args], prog_name="llmzip")
        out, err = capfdbinary.readouterr()
        return Result(info.value.code, out, err.decode())

    return run


@pytest.fixture
def text(folder):
    path = folder / "a.txt"
    path.write_bytes(TEXT)
    path.chmod(0o640)
    os.utime(path, ns=(1_000_000_001, 2_000_000_002))
    return path


OK = Result(0, b"", "")


# Files and names


def test_file_to_file_and_back(llmzip_, text):
    assert llmzip_("compress", "a.txt") == OK
    assert text.read_bytes() == TEXT
    text.rename("original")
    assert llmzip_("decompress", "a.txt.lz") == OK
    for name in ("a.txt", "a.txt.lz"):
        status = os.stat(name)
        assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o640, 2_000_000_002)
    assert text.read_bytes() == TEXT
    assert sorted(os.listdir()) == ["a.txt", "a.txt.lz", "original"]


@pytest.mark.parametrize("data", [b"", b"x", noise(5000), TEXT * 3], ids=["empty", "x", "noise", "text"])
@pytest.mark.parametrize("args", [(), ("-",), ("-c", "-"), ("-o", "-")], ids=" ".join)
def test_standard_input_to_standard_output(llmzip_, data, args):
    packed = llmzip_("compress", *args, stdin=data)
    assert packed[::2] == (0, "")
    assert llmzip_("decompress", *args, stdin=packed.out) == Result(0, data, "")


@pytest.mark.usefixtures("text")
def test_chosen_names(llmzip_):
    assert llmzip_("compress", "-o", "out", "a.txt") == OK
    assert llmzip_("decompress", "-o", "b", "out") == OK
    assert Path("b").read_bytes() == TEXT
    assert llmzip_("compress", "-o", "c.lz", stdin=TEXT) == OK
    assert Path("c.lz").read_bytes() == Path("out").read_bytes()
    assert llmzip_("decompress", "c.lz") == OK
    assert Path("c").read_bytes() == TEXT


@pytest.mark.usefixtures("text")
def test_several_files_to_standard_output_are_joined(llmzip_):
    Path("b.txt").write_bytes(b"more")
    packed = llmzip_("compress", "-c", "a.txt", "b.txt")
    assert llmzip_("decompress", "-c", stdin=packed.out).out == TEXT + b"more"
    Path("both.lz").write_bytes(packed.out)
    assert llmzip_("decompress", "both.lz") == OK
    assert Path("both").read_bytes() == TEXT + b"more"


@pytest.mark.parametrize("name", ["-dash", "ü€漢", "two words", "a.lz.txt", "line\nbreak", "\udcff\udc80"])
def test_odd_names(llmzip_, name):
    Path(name).write_bytes(TEXT)
    assert llmzip_("compress", "--", name) == OK
    os.unlink(name)
    assert llmzip_("decompress", "--", name + ".lz") == OK
    assert Path(name).read_bytes() == TEXT
    listed = llmzip_("list", "--json", "--", name + ".lz")
    assert json.loads(listed.out)[0]["name"] == name + ".lz"
    assert len(llmzip_("list", "--", name + ".lz").out.splitlines()) == 2
    again = llmzip_("compress", "--", name)
    assert again.code == 1
    assert again.err.count("\n") == 1


@pytest.mark.usefixtures("text")
def test_a_name_without_the_suffix_needs_another(llmzip_):
    llmzip_("compress", "-o", "packed", "a.txt")
    code, out, err = llmzip_("decompress", "packed")
    assert (code, out) == (1, b"")
    assert err == "llmzip: packed: does not end in .lz, so the output has no name (use -o FILE, or -c)\n"
    assert llmzip_("decompress", "-c", "packed").out == TEXT
    Path("packed").rename(".lz")
    assert "does not end in .lz" not in llmzip_("decompress", "-c", ".lz").err
    assert "no name" in llmzip_("decompress", ".lz").err


@pytest.mark.usefixtures("text")
def test_options_of_other_tools_are_known(llmzip_):
    assert llmzip_("compress", "-k", "-q", "-T", "1", "a.txt") == OK
    assert llmzip_("compress", "-kfqT2", "a.txt") == OK
    assert llmzip_("compress", "--keep", "--force", "--quiet", "--threads=0", "a.txt") == OK


@pytest.mark.usefixtures("text")
def test_threads_do_not_change_the_archive(llmzip_):
    assert llmzip_("compress", "-cT1", "a.txt").out == llmzip_("compress", "-cT3", "a.txt").out


# Refusals


@pytest.mark.usefixtures("text")
def test_existing_output_is_kept(llmzip_):
    Path("a.txt.lz").write_bytes(b"precious")
    code, _, err = llmzip_("compress", "a.txt")
    assert (code, err) == (1, "llmzip: a.txt.lz: exists already (use -f to overwrite it)\n")
    assert Path("a.txt.lz").read_bytes() == b"precious"
    assert llmzip_("compress", "-f", "a.txt") == OK
    assert llmzip_("decompress", "-c", "a.txt.lz").out == TEXT
    assert llmzip_("decompress", "a.txt.lz").code == 1
    assert llmzip_("decompress", "-f", "a.txt.lz") == OK


def test_input_is_not_output(llmzip_, text):
    code, _, err = llmzip_("compress", "-f", "-o", "a.txt", "a.txt")
    assert (code, err) == (1, "llmzip: a.txt: is the input file: it cannot be the output too (choose another -o)\n")
    assert text.read_bytes() == TEXT


def test_archives_are_not_compressed_again(llmzip_, text):
    llmzip_("compress", "a.txt")
    code, _, err = llmzip_("compress", "a.txt.lz")
    assert code == 1
    assert "already (use -f to compress it again)" in err
    assert llmzip_("compress", "-f", "a.txt.lz") == OK
    assert Path("a.txt.lz.lz").exists()
    text.rename("text.lz")  # only the name is an archive's
    assert llmzip_("compress", "text.lz") == OK


@pytest.mark.parametrize("command", ["compress", "decompress", "list"])
def test_one_line_for_what_cannot_be_read(llmzip_, command):
    Path("sub.lz").mkdir()
    os.mkfifo("pipe.lz")
    Path("file").touch()
    files = {
        "missing.lz": "No such file or directory",
        "file/x.lz": "Not a directory",
        "sub.lz": "is a directory",
        "y" * 300: "File name too long",
    }
    if command != "list":
        files["pipe.lz"] = "is not a regular file"
    code, out, err = llmzip_(command, *files)
    assert (code, out) == (1, b"")
    lines = err.splitlines()
    assert len(lines) == len(files)
    for line, (name, reason) in zip(lines, files.items(), strict=True):
        assert line.startswith(f"llmzip: {name}: {reason}")
    assert sorted(os.listdir()) == ["file", "pipe.lz", "sub.lz"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do anything")
def test_permission_denied(llmzip_, text):
    text.chmod(0)
    assert llmzip_("compress", "a.txt").err == "llmzip: a.txt: Permission denied\n"


def test_foreign_files_are_named(llmzip_):
    Path("a.lz").write_bytes(b"LZIP\x01" + bytes(40))
    Path("b.gz").write_bytes(b"\x1f\x8b" + bytes(40))
    Path("c.lz").write_bytes(TEXT)
    Path("d.lz").touch()
    for command in ("decompress", "list"):
        code, _, err = llmzip_(command, "a.lz", "b.gz", "c.lz", "d.lz")
        assert code == 1
        assert err.splitlines() == [
            "llmzip: a.lz: not an llmzip archive but a lzip file (use lzip)",
            "llmzip: b.gz: not an llmzip archive but a gzip file (use gzip)",
            "llmzip: c.lz: not an llmzip archive",
            "llmzip: d.lz: the file is empty: not an llmzip archive",
        ]
    assert sorted(os.listdir()) == ["a.lz", "b.gz", "c.lz", "d.lz"]


@pytest.mark.usefixtures("text")
def test_damaged_archives_leave_no_output(llmzip_):
    packed = llmzip_("compress", "-c", "a.txt").out
    damages = {
        "cut": (packed[:-20], "incomplete"),
        "flipped": (packed[:500] + bytes([packed[500] ^ 1]) + packed[501:], "frame|damaged|token"),
        "long": (packed + b"garbage", "something else follows"),
    }
    for name, (data, reason) in damages.items():
        Path(name + ".lz").write_bytes(data)
        code, out, err = llmzip_("decompress", name + ".lz")
        assert (code, out) == (1, b"")
        assert re.fullmatch(f"llmzip: {name}.lz: .*({reason}).*\n", err)
        assert not Path(name).exists()
        code, _, err = llmzip_("decompress", stdin=data)
        assert code == 1
        assert err.startswith("llmzip: (stdin): ")


@pytest.mark.usefixtures("text")
def test_the_others_are_processed_and_the_worst_code_returned(llmzip_):
    Path("b.txt").write_bytes(b"more")
    code, _, err = llmzip_("compress", "a.txt", "missing", "b.txt")
    assert (code, err) == (1, "llmzip: missing: No such file or directory\n")
    assert Path("a.txt.lz").exists()
    assert Path("b.txt.lz").exists()


@pytest.mark.usefixtures("text")
def test_models_that_are_missing_or_others(llmzip_):
    code, out, err = llmzip_("compress", "-m", "nosuch", "a.txt")
    assert (code, out) == (1, b"")
    assert re.fullmatch("llmzip: a.txt: there is no model called nosuch.*\n", err)
    assert os.listdir() == ["a.txt"]


def test_an_archive_of_another_model(monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "llmzip.api.stream", helpers.codec())
    Path("a.txt").write_bytes(TEXT)
    for args in (["compress", "-m", "other", "a.txt"], ["decompress", "-o", "b", "a.txt.lz"]):
        with pytest.raises(SystemExit) as info:
            cli.cli(args, prog_name="llmzip")
    assert info.value.code == 1
    assert capfd.readouterr().err == "llmzip: a.txt.lz: made with another model (give it with -m)\n"
    assert not Path("b").exists()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "not enough memory (-m none takes less)"),
        (
            ZeroDivisionError("a\nb"),
            "internal error: ZeroDivisionError: a (please report; LLMZIP_DEBUG=1 shows more)",
        ),
        (RecursionError(), "internal error: RecursionError: (please report; LLMZIP_DEBUG=1 shows more)"),
        (OSError(5, "Input/output error"), "Input/output error"),
        (OSError("odd"), "odd"),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_unexpected_errors_take_one_line(monkeypatch, capfd, error, message, debug):
    def fail(_source, destination, **_):
        destination.write(b"something")
        raise error

    codec = helpers.codec()
    codec.compress_stream = fail
    monkeypatch.setitem(sys.modules, "llmzip.api.stream", codec)
    if debug:
        monkeypatch.setenv("LLMZIP_DEBUG", "1")
    Path("a.txt").write_bytes(TEXT)
    with pytest.raises(SystemExit) as info:
        cli.cli(["compress", "a.txt"], prog_name="llmzip")
    assert info.value.code == 1
    lines = capfd.readouterr().err.splitlines()
    assert " ".join(lines[-1].split()) == f"llmzip: a.txt: {message}"
    assert (len(lines) > 1) == debug
    assert os.listdir() == ["a.txt"]


@pytest.mark.usefixtures("text")
def test_full_disk(llmzip_):
    hint = "No space left on device (free some space, or write elsewhere with -o)"
    assert llmzip_("compress", "-o", "/dev/full", "a.txt")[::2] == (1, f"llmzip: /dev/full: {hint}\n")


@pytest.mark.parametrize(
    "args",
    [
        ["nosuch"],
        ["compress", "--nosuch"],
        ["compress", "-T", "-1"],
        ["compress", "-T", "many"],
        ["compress", "-c", "-o", "out", "a"],
        ["compress", "-o", "out", "a", "b"],
        ["compress", "-o", ""],
        ["compress", "--rm", "-c", "a"],
        ["compress", "--rm", "-o", "-", "a"],
        ["compress", "--rm", "-k", "a"],
        ["compress", "--verify", "-c", "a"],
        ["decompress", "--json"],
        ["list", "-c"],
    ],
    ids=" ".join,
)
def test_wrong_usage(args, capfd):
    with pytest.raises(SystemExit) as info:
        cli.cli(args, prog_name="llmzip")
    assert info.value.code == 2
    assert capfd.readouterr().err.startswith("Usage: llmzip")


# Removal of the source


def test_sources_are_removed_after_success_only(llmzip_, text):
    assert llmzip_("compress", "--rm", "a.txt") == OK
    assert os.listdir() == ["a.txt.lz"]
    Path("a.txt").write_bytes(b"in the way")
    assert llmzip_("decompress", "--rm", "a.txt.lz").code == 1
    assert Path("a.txt.lz").exists()
    assert llmzip_("decompress", "--rm", "-f", "a.txt.lz") == OK
    assert os.listdir() == ["a.txt"]
    code, _, err = llmzip_("compress", "--rm", "-o", "/dev/null", "a.txt")
    assert code == 1
    assert "--rm would lose the data" in err
    assert text.read_bytes() == TEXT


def test_a_source_that_has_grown_is_not_removed(monkeypatch, capfd):
    codec = helpers.codec()

    def grow(source, destination, **options):
        helpers.compress_stream(source, destination, **options)
        with open("a.txt", "ab") as file:
            file.write(b"another line")

    codec.compress_stream = grow
    monkeypatch.setitem(sys.modules, "llmzip.api.stream", codec)
    Path("a.txt").write_bytes(TEXT)
    with pytest.raises(SystemExit) as info:
        cli.cli(["compress", "--rm", "a.txt"], prog_name="llmzip")
    assert info.value.code == 1
    assert capfd.readouterr().err == "llmzip: a.txt: has changed meanwhile: it is not removed (compress it again)\n"
    assert Path("a.txt").read_bytes() == TEXT + b"another line"


# Verification


@pytest.mark.parametrize("option", ["--verify", "--rm"])
def test_an_archive_that_does_not_restore_its_source_is_not_kept(monkeypatch, capfd, option):
    codec = helpers.codec()

    def spoil(source, destination, **options):
        packed = io.BytesIO()
        helpers.compress_stream(source, packed, **options)
        data = bytearray(packed.getvalue())
        data[-50] ^= 1
        destination.write(data)

    codec.compress_stream = spoil
    monkeypatch.setitem(sys.modules, "llmzip.api.stream", codec)
    Path("a.txt").write_bytes(TEXT)
    with pytest.raises(SystemExit) as info:
        cli.cli(["compress", option, "a.txt"], prog_name="llmzip")
    assert info.value.code == 1
    err = capfd.readouterr().err
    assert re.fullmatch(r"llmzip: a.txt: the archive does not restore the file: .* \(see llmzip doctor\)\n", err)
    assert os.listdir() == ["a.txt"]


def test_sound_archives_are_verified(llmzip_, text):
    assert llmzip_("compress", "--verify", "a.txt") == OK
    assert llmzip_("decompress", "-c", "a.txt.lz").out == TEXT
    assert llmzip_("compress", "--verify", "-o", "b.lz", stdin=TEXT) == OK
    assert llmzip_("compress", "--verify", stdin=TEXT) == (
        1,
        b"",
        "llmzip: (stdout): cannot be verified (use -o FILE)\n",
    )
    assert llmzip_("compress", "--rm", stdin=TEXT)[::2] == (0, "")
    assert "it cannot be verified" in llmzip_("compress", "--verify", "-o", "/dev/null", "a.txt").err
    assert text.exists()


# Salvage


def test_salvage_keeps_undamaged_frames(llmzip_):
    data = words(900)[:3500]
    packed = bytearray(llmzip_("compress", stdin=data).out)
    code, out, err = llmzip_("decompress", "--salvage", stdin=bytes(packed))
    assert (code, out, err) == (0, data, "")
    second = packed.index(b"\xf8LZ\xf7\x02")
    packed[second + 30] ^= 1
    Path("a.lz").write_bytes(packed)
    assert llmzip_("decompress", "a.lz").code == 1
    assert os.listdir() == ["a.lz"]
    code, out, err = llmzip_("decompress", "--salvage", "--rm", "a.lz")
    assert (code, out) == (1, b"")
    assert err == "llmzip: a.lz: damaged: frame 2 lost (bytes 1000 to 1999); the rest is written\n"
    assert Path("a").read_bytes() == data[:1000] + data[2000:]
    assert Path("a.lz").exists()
    Path("b.lz").write_bytes(TEXT)
    code, _, err = llmzip_("decompress", "--salvage", "b.lz")
    assert code == 1
    assert not Path("b").exists()


# List


@pytest.mark.usefixtures("text")
def test_list(llmzip_):
    Path("empty").touch()
    Path("b.txt").write_bytes(noise(2500))
    llmzip_("compress", "a.txt", "b.txt", "empty")
    code, out, err = llmzip_("list", "a.txt.lz", "missing", "b.txt.lz", "empty.lz")
    assert (code, err) == (1, "llmzip: missing: No such file or directory\n")
    rows = [line.split() for line in out.decode().splitlines()]
    assert rows[0] == ["compressed", "uncompressed", "ratio", "frames", "lanes", "memory", "model", "name"]
    for row, name in zip(rows[1:4], ("a.txt", "b.txt", "empty"), strict=True):
        compressed, size = os.path.getsize(name + ".lz"), os.path.getsize(name)
        assert row[:4] == [
            str(compressed),
            str(size),
            str(round(size / compressed, 3)),
            str(-(-size // 1000) or 1),
        ]
        assert row[-1] == name + ".lz"
    assert rows[1][4] != "0"
    assert re.fullmatch("[0-9a-f]{16}", rows[1][6])
    assert (rows[3][4], rows[3][6]) == ("0", "none")
    assert rows[4][1] == str(len(TEXT) + 2500)
    assert rows[4][-2:] == ["3", "files"]


@pytest.mark.usefixtures("text")
def test_list_as_json_from_a_file_and_a_pipe(llmzip_):
    llmzip_("compress", "a.txt")
    code, out, _ = llmzip_("list", "--json", "a.txt.lz")
    assert code == 0
    (row,) = json.loads(out)
    assert row["name"] == "a.txt.lz"
    assert row["uncompressed"] == len(TEXT)
    process = start("list", "--json", stdin=subprocess.PIPE)
    (piped,) = json.loads(process.communicate(Path("a.txt.lz").read_bytes())[0])
    assert piped == {**row, "name": "-"}
    assert llmzip_("list", "--json", "missing").out == b"[]\n"


@pytest.mark.usefixtures("text")
def test_list_finds_truncation_without_reading(llmzip_):
    packed = llmzip_("compress", "-c", "a.txt").out
    for size in (len(packed) - 1, len(packed) // 2, 20):
        Path("a.lz").write_bytes(packed[:size])
        code, _, err = llmzip_("list", "a.lz")
        assert code == 1
        assert "incomplete" in err


# Help


def commands(group=cli.cli, name="llmzip"):
    found = [(name, group)]
    context = click.Context(group)
    for child in group.list_commands(context):
        command = group.get_command(context, child)
        found += commands(command, child) if isinstance(command, click.Group) else [(child, command)]
    return found


@pytest.mark.parametrize(("name", "command"), commands())
def test_help_has_an_example_and_every_option_a_text(name, command):
    context = click.Context(command, info_name=name, help_option_names=["-h", "--help"])
    text = command.get_help(context)
    assert "Examples:\n" in text
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option):
            assert parameter.help
    assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize("args", [["-h"], ["--help"], ["list", "-h"], ["compress", "--help"], ["--version"]])
def test_help_and_version(args, capfd):
    with pytest.raises(SystemExit) as info:
        cli.cli(args, prog_name="llmzip")
    assert info.value.code == 0
    assert capfd.readouterr().out.startswith("llmzip 0." if "--version" in args else "Usage: llmzip")


# Processes


@pytest.mark.parametrize(
    "args", [["--help"], ["--version"], ["list", "a.lz"], ["list", "--json", "a.lz"], ["models", "list"]]
)
def test_light_commands_import_nothing_heavy(args):
    with open("a.lz", "wb") as file:
        helpers.compress_stream(io.BytesIO(TEXT), file)
    program = f"""
import sys
sys.argv = ["llmzip", *{args!r}]
from llmzip.cli import main
try:
    main()
finally:
    heavy = {{"torch", "numba", "numpy", "tqdm", "safetensors", "llmzip.api.stream"}} & set(sys.modules)
    sys.stderr.write(repr(heavy))
"""
    done = subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, check=True)
    assert done.stderr == b"set()"


def test_importing_the_package_is_light():
    program = """
import sys, llmzip
assert llmzip.LlmzipError and llmzip.__version__
assert not {"torch", "numba", "numpy", "click"} & set(sys.modules)
assert {"compress", "decompress", "compress_stream", "decompress_stream"} <= set(dir(llmzip))
try:
    llmzip.nosuch
except AttributeError:
    pass
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, check=True)


def test_the_module_runs():
    command = [sys.executable, "-m", "llmzip", "--version"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=True)
    assert done.stdout == f"llmzip {llmzip.__version__}\n".encode()


@pytest.mark.parametrize("args", [["decompress", "-c", "a.lz"], ["list", *["a.lz"] * 5000]])
def test_a_closed_pipe_is_silent(args):
    with open("a.lz", "wb") as file:
        helpers.compress_stream(io.BytesIO(bytes(3_000_000 if args[0] == "decompress" else 10)), file)
    process = start(*args)
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait() == -signal.SIGPIPE
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.parametrize(
    ("redirection", "args", "code", "message"),
    [
        (">&-", ["compress", "-c", "a.txt"], 1, "llmzip: (stdout): is closed\n"),
        (">&-", ["list"], 1, "llmzip: (stdin): not an llmzip archive\nllmzip: (stdout): is closed\n"),
        ("<&-", ["compress"], 1, "llmzip: (stdin): is closed\n"),
        ("2>&-", ["compress", "a.txt"], 0, ""),
        ("2>&-", ["compress", "missing"], 1, ""),
    ],
)
def test_closed_standard_streams(redirection, args, code, message):
    Path("a.txt").write_bytes(TEXT)
    shell = ["sh", "-c", f'"$@" {redirection}', "sh", *COMMAND, *args]
    done = subprocess.run(shell, env=ENVIRONMENT, capture_output=True, text=True, check=False, input="?")
    assert (done.returncode, done.stderr) == (code, message)
    assert Path("a.txt").read_bytes() == TEXT
    if code == 0:
        assert start("decompress", "-c", "a.txt.lz").communicate()[0] == TEXT


def test_output_to_the_file_that_is_read():
    Path("a.txt").write_bytes(TEXT)
    with open("a.txt", "ab") as file:
        process = start("compress", "-c", "a.txt", stdout=file)
        assert b"is the input file" in process.communicate()[1]
    assert Path("a.txt").read_bytes() == TEXT


def test_full_standard_output():
    with open("/dev/full", "wb") as full:
        process = start("compress", stdin=subprocess.PIPE, stdout=full)
        _, err = process.communicate(noise(100_000))
    assert process.returncode == 1
    assert err.decode() == ("llmzip: (stdout): No space left on device (free some space, or write elsewhere with -o)\n")


def in_terminal(*args, **options):
    """Run with a terminal for every stream not given; return the exit code and what it shows."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), slave)
    process = start(*args, **{**streams, **options})
    os.close(slave)
    shown = bytearray()

    def watch():
        try:
            while data := os.read(master, 4096):
                shown.extend(data)
        except OSError:  # how Linux says that nobody has it open any more
            pass

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    watcher.join()
    os.close(master)
    return code, bytes(shown).replace(b"\r\n", b"\n")


def test_terminals_are_neither_fed_archives_nor_asked_for_them():
    Path("a.txt").write_bytes(TEXT)
    code, shown = in_terminal("compress", "-c", "a.txt")
    assert (code, shown) == (
        1,
        b"llmzip: (stdout): is a terminal, and archives are not text (use -o FILE, or -f)\n",
    )
    for command in ("decompress", "list"):
        code, shown = in_terminal(command)
        assert code == 1
        assert b"llmzip: (stdin): is a terminal" in shown
    code, shown = in_terminal("compress", "-cf", "a.txt")
    assert code == 0
    assert b"LZ" in shown


def test_progress_is_for_terminals():
    Path("a.txt").write_bytes(TEXT)
    code, shown = in_terminal("compress", "a.txt")
    assert code == 0
    assert b"a.txt: " in shown
    assert b"%" in shown
    code, shown = in_terminal("decompress", "-o", "b", "a.txt.lz")
    assert code == 0
    assert b"a.txt.lz: " in shown
    assert Path("b").read_bytes() == TEXT
    assert in_terminal("compress", "-qf", "a.txt") == (0, b"")
    # The text itself is shown without a bar.
    assert in_terminal("decompress", "-c", "a.txt.lz") == (0, TEXT)


# Folders


@pytest.fixture
def tree(text):
    """Three files, a link and an archive in folders."""
    Path("d/e").mkdir(parents=True)
    for name in ("d/b.txt", "d/e/c.txt", "d/a.txt"):
        Path(name).write_bytes(TEXT + name.encode())
    os.symlink(text, "d/link.txt")
    os.symlink("..", "d/e/up")
    return Path("d")


def files_in(folder):
    return sorted(str(path) for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


@pytest.mark.usefixtures("tree")
def test_folders_and_back(llmzip_):
    sources = ["d/a.txt", "d/b.txt", "d/e/c.txt"]
    assert llmzip_("compress", "-r", "d") == OK
    assert files_in(Path("d")) == sorted([*sources, *(name + ".lz" for name in sources)])
    # Archives are passed over, and so is what is in the way of nobody.
    assert llmzip_("compress", "-rf", "d") == OK
    assert len(files_in(Path("d"))) == 6
    rows = json.loads(llmzip_("list", "-r", "--json", "d").out)
    assert [row["name"] for row in rows] == [name + ".lz" for name in sources]
    assert llmzip_("test", "-r", "d") == OK
    for name in sources:
        os.unlink(name)
    assert llmzip_("decompress", "-r", "--rm", "d") == OK
    assert files_in(Path("d")) == sources
    assert Path("d/e/c.txt").read_bytes() == TEXT + b"d/e/c.txt"


@pytest.mark.usefixtures("tree")
def test_files_after_one_that_fails_in_a_folder(llmzip_):
    assert llmzip_("compress", "-r", "d") == OK
    Path("d/a.txt.lz").write_bytes(b"plain")
    code, _, err = llmzip_("test", "-r", "d", "missing")
    assert code == 1
    assert err.splitlines() == [
        "llmzip: d/a.txt.lz: not an llmzip archive",
        "llmzip: missing: No such file or directory",
    ]
    code, _, err = llmzip_("test", "-rv", "d")
    assert [line.split(":")[1] for line in err.splitlines()] == [" d/a.txt.lz", " d/b.txt.lz", " d/e/c.txt.lz"]


def test_a_file_that_only_has_the_suffix_is_compressed_from_a_folder(llmzip_):
    Path("d").mkdir()
    Path("d/x.lz").write_bytes(TEXT)
    assert llmzip_("compress", "-r", "d") == OK
    assert files_in(Path("d")) == ["d/x.lz", "d/x.lz.lz"]


# Test


def test_test_writes_nothing(llmzip_, text):
    packed = llmzip_("compress", "-c", "a.txt").out
    Path("a.txt.lz").write_bytes(packed)
    text.unlink()
    assert llmzip_("test", "a.txt.lz") == OK
    assert llmzip_("test", stdin=packed) == OK
    Path("b.lz").write_bytes(packed[:-1])
    assert llmzip_("test", "b.lz", "a.txt.lz")[::2] == (
        1,
        "llmzip: b.lz: the archive is incomplete: its end is missing "
        "(decompress --salvage writes the undamaged frames)\n",
    )
    assert sorted(os.listdir()) == ["a.txt.lz", "b.lz"]


# Telling more or less


@pytest.mark.usefixtures("text")
def test_verbose_tells_sizes_and_speed(llmzip_):
    code, _, err = llmzip_("compress", "-v", "a.txt")
    assert code == 0
    size = os.path.getsize("a.txt.lz")
    line = f"llmzip: {{}}: {size} bytes compressed ({8 * size / len(TEXT):.3f} bits/byte), {len(TEXT)} bytes in "
    assert err.startswith(line.format("a.txt"))
    assert re.search(r" in \d+\.\d s, \d+\.\d KB/s\n$", err)
    code, _, err = llmzip_("decompress", "-vf", "a.txt.lz")
    assert err.startswith(line.format("a.txt.lz"))
    packed = Path("a.txt.lz").read_bytes()
    assert llmzip_("compress", "-v", stdin=b"").err.startswith("llmzip: (stdin): 13 bytes compressed, 0 bytes in")
    process = start("test", "-v", stdin=subprocess.PIPE)
    _, err = process.communicate(packed)
    if process.returncode == 0:  # not for an archive of the real codec
        assert err.startswith(f"llmzip: (stdin): {len(TEXT)} bytes in".encode())


def test_no_progress_bar_where_none_is_wanted():
    Path("a.txt").write_bytes(TEXT)
    for command in (["compress", "a.txt"], ["test", "a.txt.lz"]):
        assert in_terminal(*command, "--no-progress") == (0, b"")
        shown = in_terminal(*command[:1], *([] if command[0] == "test" else ["-f"]), command[1])[1]
        assert command[1].encode() + b": " in shown


# The environment


def test_model_and_threads_from_the_environment(tiny_file, monkeypatch, capfd):
    Path("a.txt").write_bytes(TEXT)
    monkeypatch.setenv("LLMZIP_MODEL", str(tiny_file))
    monkeypatch.setenv("LLMZIP_THREADS", "1")
    seen = []
    codec = importlib.import_module("llmzip.api.stream")
    compress = codec.compress_stream
    monkeypatch.setattr(codec, "compress_stream", lambda *a, **k: (seen.append(k), compress(*a, **k)))
    with pytest.raises(SystemExit):
        cli.cli(["compress", "a.txt"], prog_name="llmzip")
    assert (seen[0]["model"], seen[0]["threads"]) == (str(tiny_file), 1)
    monkeypatch.setenv("LLMZIP_THREADS", "many")
    with pytest.raises(SystemExit) as info:
        cli.cli(["compress", "a.txt"], prog_name="llmzip")
    assert info.value.code == 2
    assert "LLMZIP_THREADS" in capfd.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell):
    def complete(words, word):
        variables = {
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
            "_LLMZIP_COMPLETE": shell + "_complete",
        }
        if shell == "fish":
            variables["COMP_CWORD"] = word
        done = subprocess.run(COMMAND, env={**ENVIRONMENT, **variables}, capture_output=True, text=True, check=True)
        return done.stdout

    assert "decompress" in complete("llmzip dec", "dec")
    assert "--salvage" in complete("llmzip decompress --sal", "--sal")
    assert "default" in complete("llmzip compress -m def", "def")


# Open descriptors, sources that are removed, messages


@pytest.mark.parametrize(("name", "redirection"), [("/dev/stdout", ">>"), ("/dev/fd/3", "3>>"), ("link", ">>")])
def test_open_descriptors_are_appended_to(name, redirection):
    Path("a.txt").write_bytes(TEXT)
    Path("app.lz").write_bytes(b"")
    os.symlink("/dev/stdout", "link")
    for _ in range(2):
        command = f'"$@" {redirection} app.lz'
        subprocess.run(
            ["bash", "-c", command, "bash", *COMMAND, "compress", "-fo", name, "a.txt"], env=ENVIRONMENT, check=True
        )
    assert start("decompress", "-c", "app.lz").communicate()[0] == 2 * TEXT


@pytest.mark.parametrize("option", ["--rm", "--verify"])
def test_a_descriptor_is_no_output_to_rely_on(option):
    Path("a.txt").write_bytes(TEXT)
    for name, code in (("/dev/stdout", 2), ("/dev/fd/1", 2), ("/dev/fd/3", 1)):
        command = ["bash", "-c", '"$@" 3> out >> out', "bash", *COMMAND, "compress", option, "-o", name, "a.txt"]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert ("cannot be used with standard output" if code == 2 else "is not a new file") in done.stderr
    assert Path("a.txt").read_bytes() == TEXT


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_only_regular_files_are_removed(command, folder):
    Path("a.txt").write_bytes(TEXT)
    assert start("compress", "a.txt").wait() == 0
    name = "b.txt" if command == "compress" else "b.txt.lz"
    os.symlink(name.replace("b", "a"), name)
    process = start(command, "--rm", name)
    assert (
        process.communicate()[1].decode() == f"llmzip: {name}: is a symbolic link: it is not removed (leave out --rm)\n"
    )
    assert process.returncode == 1
    os.mkfifo("pipe")
    process = start(command, "--rm", "-o", "out", "pipe")
    assert b"pipe: is not a regular file: it is not removed" in process.communicate()[1]
    assert sorted(os.listdir(folder)) == sorted(["a.txt", "a.txt.lz", name, "pipe"])


def test_a_source_whose_status_has_changed_is_not_removed(monkeypatch, capfd):
    """Size and times of the content can be set back; the time of the last change of status cannot."""
    codec = helpers.codec()
    Path("a.txt").write_bytes(TEXT)
    before = os.stat("a.txt")
    compress_stream = codec.compress_stream

    def change_and_compress(*args, **options):
        compress_stream(*args, **options)
        Path("a.txt").write_bytes(TEXT[::-1])
        os.utime("a.txt", ns=(before.st_atime_ns, before.st_mtime_ns))

    monkeypatch.setattr(codec, "compress_stream", change_and_compress)
    monkeypatch.setitem(sys.modules, "llmzip.api.stream", codec)
    with pytest.raises(SystemExit):
        cli.cli(["compress", "--rm", "a.txt"], prog_name="llmzip")
    assert capfd.readouterr().err == "llmzip: a.txt: has changed meanwhile: it is not removed (compress it again)\n"
    assert Path("a.txt").read_bytes() == TEXT[::-1]


def test_a_source_is_kept_when_the_disk_fails(monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "llmzip.api.stream", helpers.codec())
    Path("a.txt").write_bytes(TEXT)
    real = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(SystemExit):
        cli.cli(["compress", "--rm", "a.txt"], prog_name="llmzip")
    assert capfd.readouterr().err == "llmzip: a.txt.lz: Input/output error\n"
    assert Path("a.txt").exists()


def test_pipes_are_tested_and_listed():
    Path("a.txt").write_bytes(TEXT)
    assert start("compress", "a.txt").wait() == 0
    for command in ("test", "list"):
        pipe = ["bash", "-c", '"$@" <(cat a.txt.lz)', "bash", *COMMAND, command]
        done = subprocess.run(pipe, env=ENVIRONMENT, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("command", "hint"), [("compress", "-m none takes less"), ("decompress", "llmzip list shows how much it takes")]
)
def test_too_little_memory(monkeypatch, capfd, command, hint):
    codec = helpers.codec()

    def fail(*_, **__):
        raise MemoryError

    Path("a.lz").write_bytes(b"\xf8LZ\0")
    for name in ("compress_stream", "decompress_stream"):
        monkeypatch.setattr(codec, name, fail)
    monkeypatch.setitem(sys.modules, "llmzip.api.stream", codec)
    with pytest.raises(SystemExit):
        cli.cli([command, "-fo", "out", "a.lz"], prog_name="llmzip")
    assert capfd.readouterr().err == f"llmzip: a.lz: not enough memory ({hint})\n"


@pytest.mark.parametrize("args", [["--help"], ["compress", "--help"], ["--version"], ["list", "--json"]])
def test_help_on_a_full_disk(args):
    with open("/dev/full", "wb") as full:
        process = start(*args, stdout=full)
        err = process.communicate()[1].decode()
    assert process.returncode == 1
    assert (
        err.splitlines()[-1]
        == "llmzip: (stdout): No space left on device (free some space, or write elsewhere with -o)"
    )
    assert "Traceback" not in err


def test_a_working_folder_that_is_gone_names_the_output(folder):
    Path("a.txt").write_bytes(TEXT)
    command = f'mkdir gone && cd gone && rmdir ../gone && "$@" -o out.lz "{folder}/a.txt"'
    done = subprocess.run(
        ["bash", "-c", command, "bash", *COMMAND, "compress"], env=ENVIRONMENT, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, b"llmzip: out.lz: No such file or directory\n")


def test_names_outside_the_locale_are_readable():
    env = {**ENVIRONMENT, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for name, shown in (("straße", "straße"), (b"\xff\xfe", "\\xff\\xfe")):
        command = [*COMMAND, "compress", name]
        err = subprocess.run(command, env=env, capture_output=True, check=False).stderr.decode()
        assert err == f"llmzip: {shown}: No such file or directory\n"
