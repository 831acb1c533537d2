"""Many files: outputs in another folder, lists, what is there already, shards, the report."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import helpers
import pytest
from texts import words

from llmzip import cli
from llmzip.batch.shard import Shard

TEXTS = {"a.txt": words(50, 1), "b/c.txt": words(60, 2), "b/d/e.txt": words(70, 3)}
SIZE = sum(map(len, TEXTS.values()))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working folder with texts in the folder "in", and the codec of the tests."""
    monkeypatch.setitem(sys.modules, "llmzip.api.stream", helpers.codec())
    monkeypatch.chdir(tmp_path)
    for name, text in TEXTS.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
        os.utime(path, (1e9, 1e9))
    return tmp_path


@pytest.fixture
def llmzip_(capfd):
    """Run a command line on many files; return the exit code, the report and the lines about failures."""

    def run(*args):
        capfd.readouterr()
        with pytest.raises(SystemExit) as info:
            cli.cli([*args, "--json"], prog_name="llmzip")
        out, err = capfd.readouterr()
        *lines, summary = err.splitlines() or [""]
        return info.value.code, json.loads(out) if out else None, lines, summary

    return run


def content(archive: bytes) -> bytes:
    out = io.BytesIO()
    helpers.decompress_stream(io.BytesIO(archive), out)
    return out.getvalue()


def files_below(folder: str) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_folder_to_folder_and_back(llmzip_, jobs):
    code, report, lines, summary = llmzip_("compress", "-r", "in", "--output-dir", "out", "-j", jobs)
    assert (code, lines) == (0, [])
    packed = files_below("out")
    assert set(packed) == {f"{name}.lz" for name in TEXTS}
    sizes = sum(map(len, packed.values()))
    expected = {"files": 3, "done": 3, "skipped": 0, "failed": 0, "uncompressed": SIZE, "compressed": sizes}
    assert {key: report[key] for key in expected} == expected
    assert report["ratio"] == round(SIZE / sizes, 3)
    assert summary.startswith(f"llmzip: 3 done, 0 skipped, 0 failed; {SIZE} bytes of content, {sizes} compressed")
    code, back, *_ = llmzip_("decompress", "-r", "out", "--output-dir", "back", "-j", jobs)
    assert code == 0
    assert files_below("back") == TEXTS
    assert (back["uncompressed"], back["compressed"]) == (SIZE, sizes)
    assert llmzip_("test", "-r", "out")[1]["done"] == 3


@pytest.mark.parametrize("end", ["\n", "\r\n", "\0"])
def test_list_keeps_whole_paths(llmzip_, folder, end):
    names = ["in/a.txt", str(folder / "in/b/c.txt"), ""]
    Path("list").write_bytes(end.join(names).encode())
    assert llmzip_("compress", "--files-from", "list", "--output-dir", "out")[0] == 0
    assert set(files_below("out")) == {"in/a.txt.lz", f"{folder}/in/b/c.txt.lz".lstrip("/")}


def test_archives_in_a_list_are_listed(capfd):
    def listed() -> list[str]:
        with pytest.raises(SystemExit):
            cli.cli(["list", "--json", "--files-from", "list"], prog_name="llmzip")
        return [row["name"] for row in json.loads(capfd.readouterr().out)]

    with pytest.raises(SystemExit):
        cli.cli(["compress", "-r", "in"], prog_name="llmzip")
    Path("list").write_text("in/a.txt.lz\nin/b/c.txt.lz\n")
    assert listed() == ["in/a.txt.lz", "in/b/c.txt.lz"]
    Path("list").write_text("")
    assert listed() == []


def test_failures_stop_nobody(llmzip_):
    Path("list").write_text("in/a.txt\nnosuch\n../up\nin/b/c.txt\nin/a.txt\n")
    code, report, lines, _ = llmzip_("compress", "--files-from", "list", "--output-dir", "out", "in")
    assert code == 1
    assert set(files_below("out")) == {"in/a.txt.lz", "in/b/c.txt.lz"}
    assert (report["files"], report["done"], report["failed"]) == (6, 2, 4)
    for name, text in (
        ("../up", "has a name that leads out of its folder"),
        ("in/a.txt", "has the same output as a file before it: out/in/a.txt.lz"),
        ("in", "is a directory"),
        ("nosuch", "No such file or directory"),
    ):
        assert any(line.startswith(f"llmzip: {name}: {text}") for line in lines), lines
        assert any((one["name"], one["error"][: len(text)]) == (name, text) for one in report["failures"])


def test_resume_leaves_what_is_current(llmzip_):
    command = ("compress", "-r", "in", "--output-dir", "out", "--resume")
    assert llmzip_(*command)[1]["done"] == 3
    before = {name: os.stat(f"out/{name}").st_ino for name in files_below("out")}
    code, report, *_ = llmzip_(*command)
    assert (code, report["done"], report["skipped"]) == (0, 0, 3)
    assert {name: os.stat(f"out/{name}").st_ino for name in files_below("out")} == before
    code, report, *_ = llmzip_("compress", "-r", "in", "--output-dir", "out")
    assert (code, report["failed"]) == (1, 3)  # without it, nothing is overwritten


@pytest.mark.parametrize("change", ["newer", "longer", "cut", "list", "gone"])
def test_resume_makes_anew_what_is_not_current(llmzip_, change):
    command = ("compress", "-r", "in", "--output-dir", "out", "--resume")
    big = words(2000, 4)
    Path("in/a.txt").write_bytes(big)
    os.utime("in/a.txt", (1e9, 1e9))
    assert llmzip_(*command)[1]["done"] == 3
    archive = Path("out/a.txt.lz")
    whole = archive.read_bytes()
    if change == "newer":
        os.utime("in/a.txt", (2e9, 2e9))
    elif change == "longer":
        big += b"more"
        Path("in/a.txt").write_bytes(big)
        os.utime("in/a.txt", (1e9, 1e9))
    elif change == "gone":
        archive.unlink()
    else:
        archive.write_bytes(whole[:-1] if change == "cut" else whole[:-9] + b"\0" + whole[-8:])
    code, report, lines, _ = llmzip_(*command)
    assert (code, report["done"], report["skipped"]) == (0, 1, 2), lines
    assert content(archive.read_bytes()) == big


def test_resume_replaces_archives_only(llmzip_):
    Path("out/b").mkdir(parents=True)
    Path("out/a.txt.lz").write_bytes(b"somebody's")
    code, report, lines, _ = llmzip_("compress", "-r", "in", "--output-dir", "out", "--resume")
    assert (code, report["done"]) == (1, 2)
    assert lines == ["llmzip: out/a.txt.lz: exists already (use -f to overwrite it)"]
    assert Path("out/a.txt.lz").read_bytes() == b"somebody's"


def test_resume_of_decompression_never_replaces_an_edited_file(llmzip_):
    llmzip_("compress", "-r", "in", "--output-dir", "out")
    llmzip_("decompress", "-r", "out", "--output-dir", "back")
    Path("back/a.txt").write_bytes(b"edited")
    Path("back/b/c.txt").unlink()
    code, report, *_ = llmzip_("decompress", "-r", "out", "--output-dir", "back", "--resume")
    assert (code, report["done"], report["skipped"], report["failed"]) == (1, 1, 1, 1)
    assert files_below("back") == {**TEXTS, "a.txt": b"edited"}


def test_shards_are_all_files_once_and_leave_markers(llmzip_, monkeypatch):
    for number in (1, 2):
        code, report, *_ = llmzip_("compress", "-r", "in", "--output-dir", "out", "--shard", f"{number}/2")
        assert (code, report["done"]) == (0, 3 - number)
    assert {n for n in files_below("out") if n.endswith(".lz")} == {f"{name}.lz" for name in TEXTS}
    monkeypatch.setattr("llmzip.cli.many.is_current", lambda *_: pytest.fail("the marker is enough"))
    assert llmzip_("compress", "-r", "in", "--output-dir", "out", "--shard", "1/2")[1]["skipped"] == 2


def test_shard_with_other_files_is_not_done(llmzip_):
    command = ("compress", "-r", "in", "--output-dir", "out", "--shard", "1/1")
    llmzip_(*command)
    Path("in/new.txt").write_bytes(b"new")
    report = llmzip_(*command)[1]
    assert (report["done"], report["skipped"]) == (1, 3)


def test_failed_shard_leaves_no_marker(llmzip_):
    Path("out").mkdir()
    Path("out/a.txt.lz").write_bytes(b"somebody's")
    assert llmzip_("compress", "-r", "in", "--output-dir", "out", "--shard", "1/1")[0] == 1
    assert not Path("out/.llmzip-shards").exists()


def test_shards_are_numbered_from_one():
    assert Shard.parse("3/10") == Shard(3, 10)
    for text in ("0/3", "4/3", "1", "a/b", "-1/3", "1/0"):
        with pytest.raises(ValueError, match="is not i/n"):
            Shard.parse(text)


@pytest.mark.parametrize(
    "args",
    [
        ("-c", "in/a.txt", "--resume"),
        ("-o", "x", "in/a.txt", "--output-dir", "out"),
        ("--resume",),
        ("-", "--output-dir", "out"),
        ("in/a.txt", "--shard", "1/2"),
        ("in/a.txt", "--cluster", "local", "--rm"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_used_together(llmzip_, args):
    assert llmzip_("compress", *args)[0] == 2


def test_sources_can_be_removed(llmzip_, monkeypatch):
    monkeypatch.setattr("llmzip.cli.conversion.verify", lambda *_, **__: None)
    assert llmzip_("compress", "-r", "in", "--output-dir", "out", "--rm")[0] == 0
    assert files_below("in") == {}
    assert set(files_below("out")) == {f"{name}.lz" for name in TEXTS}


# Object stores


def test_one_file_of_a_store(s3, capfd):
    def llmzip(*args):
        with pytest.raises(SystemExit) as info:
            cli.cli(args, prog_name="llmzip")
        return info.value.code, *capfd.readouterr()

    s3.pipe("bucket/a.txt", TEXTS["a.txt"])
    assert llmzip("compress", "s3://bucket/a.txt") == (0, "", "")
    assert content(s3.cat("bucket/a.txt.lz")) == TEXTS["a.txt"]
    assert llmzip("test", "s3://bucket/a.txt.lz") == (0, "", "")
    assert llmzip("list", "s3://bucket/a.txt.lz")[1].endswith("s3://bucket/a.txt.lz\n")
    assert llmzip("decompress", "s3://bucket/a.txt.lz", "-o", "local") == (0, "", "")
    assert Path("local").read_bytes() == TEXTS["a.txt"]
    assert llmzip("compress", "local", "-o", "s3://bucket/b.lz") == (0, "", "")
    assert s3.cat("bucket/b.lz") == s3.cat("bucket/a.txt.lz")
    for args, line in (
        (("compress", "s3://bucket/a.txt"), "s3://bucket/a.txt.lz: exists already (use -f to overwrite it)"),
        (("decompress", "s3://bucket/nosuch.lz"), "s3://bucket/nosuch.lz: No such file or directory"),
        (("compress", "--rm", "s3://bucket/a.txt"), "s3://bucket/a.txt: is a URL: it is not removed (leave out --rm)"),
        (("compress", "https://host/a?key=secret"), None),
    ):
        code, _, err = llmzip(*args)
        assert (code, err) == (1, f"llmzip: {line}\n") if line else "secret" not in err


def test_store_to_store_and_resume(llmzip_, s3):
    for name, text in TEXTS.items():
        s3.pipe(f"bucket/in/{name}", text)
    command = ("compress", "s3://bucket/in/**/*.txt", "--output-dir", "s3://bucket/out", "-j", "2", "--resume")
    code, report, lines, _ = llmzip_(*command)
    assert (code, report["done"], lines) == (0, 3, [])
    assert {name: content(s3.cat(f"bucket/out/{name}.lz")) for name in TEXTS} == TEXTS
    s3.pipe("bucket/out/a.txt.lz", s3.cat("bucket/out/a.txt.lz")[:-1])
    s3.rm("bucket/out/b/c.txt.lz")
    code, report, *_ = llmzip_(*command)
    assert (code, report["done"], report["skipped"]) == (0, 2, 1)
    assert {name: content(s3.cat(f"bucket/out/{name}.lz")) for name in TEXTS} == TEXTS
    code, report, *_ = llmzip_("decompress", "-r", "s3://bucket/out", "--output-dir", "back")
    assert code == 0
    assert files_below("back") == TEXTS


def test_killed_in_the_middle_and_resumed(s3, llmzip_):
    for i in range(30):
        s3.pipe(f"bucket/in/{i:02}.txt", words(300, i))
    args = ("compress", "-r", "s3://bucket/in", "--output-dir", "s3://bucket/out", "--resume")
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    process = helpers.start(*args, env=helpers.ENVIRONMENT | environment)
    while len(s3.find("bucket/out")) < 5:
        assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()
    there = s3.find("bucket/out")
    assert 5 <= len(there) < 30
    for name in there:  # complete, or not there
        assert content(s3.cat(name)) == s3.cat(name.replace("/out/", "/in/").removesuffix(".lz"))
    code, report, *_ = llmzip_(*args)
    assert (code, report["done"], report["skipped"]) == (0, 30 - len(there), len(there))
    assert len(s3.find("bucket/out")) == 30
