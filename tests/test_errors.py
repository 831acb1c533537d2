"""Reproduce the table of docs/errors.md: message and exit code for everything that goes wrong."""

import contextlib
import gzip
import io
import math
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import helpers
import pytest
import torch
from click.testing import CliRunner
from helpers import COMMAND, ENVIRONMENT, written_so_far
from texts import noise, words

from llmzip.cli import train as command
from llmzip.container.format import Writer
from llmzip.training import build
from llmzip.training.workers import Workers

TEXT = words(900)[:3500]


REAL = [COMMAND[0], "-m", "llmzip"]


def rows():
    """Return what, message and exit code of each row of the page."""
    page = (Path(__file__).parents[1] / "docs" / "errors.md").read_text()
    table = re.findall(r"^\| (.*?) \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    return {what: (message.strip("`"), code) for what, message, code in table if what != "what"}


ROWS = rows()


def pack(text=TEXT):
    out = io.BytesIO()
    helpers.compress_stream(io.BytesIO(text), out)
    return out.getvalue()


PACKED = pack()
SECOND = PACKED.index(b"\xf8LZ\xf7\x02")


def foreign():
    """An archive that names a model that nobody has."""
    out = io.BytesIO()
    digest = bytes.fromhex("0123456789abcdef") + bytes(24)
    Writer(out, digest).write(b"content", last=True, payload=b"coded", lane_bytes=[7])
    return out.getvalue()


CONTENTS = {
    "truncated": ("truncated.lz", PACKED[:-10]),
    "corrupted": ("corrupted.lz", None),
    "corrupted header": ("header.lz", PACKED[:14] + bytes([PACKED[14] ^ 1]) + PACKED[15:]),
    "garbage appended": ("garbage.lz", PACKED + b"garbage"),
    "plain text": ("plain.lz", TEXT),
    "empty file": ("empty.lz", b""),
    "lzip file": ("lzip.lz", b"LZIP\x01" + bytes(30)),
    "gzip file": ("gzip.lz", b"\x1f\x8b\x08" + bytes(30)),
    "zip file": ("zip.lz", b"PK\x03\x04" + bytes(30)),
    "newer version": ("newer.lz", b"\xf8LZ\x07" + bytes(30)),
    "no suffix": ("packed", PACKED),
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*args, command=COMMAND, **options):
    usual = {"env": ENVIRONMENT, "capture_output": True, "text": True, "check": False, "stdin": subprocess.DEVNULL}
    return subprocess.run([*command, *args], **{**usual, **options})


def expect(what, done):
    """Compare with the page; nothing half-written may be left."""
    message, code = ROWS.pop(what)
    assert (done.returncode, done.stderr.splitlines()[-1], done.stdout) == (int(code), message, "")
    assert not list(Path().rglob(".llmzip-*"))


@pytest.mark.parametrize("what", [what for what in CONTENTS if what != "corrupted"])
def test_what_is_no_sound_archive(what):
    name, content = CONTENTS[what]
    Path(name).write_bytes(content)
    expect(what, run("decompress", name))
    assert os.listdir() == [name]
    if what != "no suffix":
        tested = run("test", name)
        assert (tested.returncode, tested.stderr) == (1, run("decompress", name).stderr)


def test_corruption_that_only_the_checksum_finds():
    out = io.BytesIO()
    writer = Writer(out)
    writer.write(noise(100), last=False)
    writer.write(noise(100, 1), last=True)
    damaged = bytearray(out.getvalue())
    damaged[damaged.index(noise(100, 1)) + 50] ^= 1
    Path("corrupted.lz").write_bytes(damaged)
    expect("corrupted", run("decompress", "corrupted.lz", command=REAL))
    assert os.listdir() == ["corrupted.lz"]


def test_names_that_cannot_be_read():
    Path("folder.lz").mkdir()
    expect("missing file", run("decompress", "missing.lz"))
    expect("directory", run("decompress", "folder.lz"))


def test_permissions():
    command = COMMAND
    if os.geteuid() == 0:  # who may do anything, unless told otherwise
        if not shutil.which("setpriv"):
            pytest.skip("root may do anything")
        command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *COMMAND]
    Path("secret.lz").write_bytes(PACKED)
    Path("secret.lz").chmod(0)
    Path("locked").mkdir()
    Path("a.lz").write_bytes(PACKED)
    Path("locked").chmod(0o555)
    expect("no permission to read", run("decompress", "secret.lz", command=command))
    expect("no permission to write", run("decompress", "-o", "locked/a", "a.lz", command=command))


@pytest.fixture
def small(folder):
    """A file system of 64 KB."""
    path = folder / "small"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed")
    yield path
    subprocess.run(["umount", path], check=True)


def test_a_full_disk(small):
    text = words(40_000)
    Path("a.lz").write_bytes(pack(text))
    assert len(text) > 100_000
    (small / "a").write_bytes(b"precious")
    for args in (["-f"], []):
        if not args:
            (small / "a").unlink()
        done = run("decompress", *args, "-o", "small/a", "a.lz")
        message, code = ROWS["disk full"]
        assert (done.returncode, done.stderr) == (int(code), message + "\n")
        assert [path.name for path in small.iterdir()] == ["a"] * len(args)
    expect("disk full", done)


def test_output_that_exists():
    Path("exists.lz").write_bytes(PACKED)
    Path("exists").write_bytes(b"precious")
    expect("output exists", run("decompress", "exists.lz"))
    assert Path("exists").read_bytes() == b"precious"


def test_models_that_are_not_here():
    Path("foreign.lz").write_bytes(foreign())
    Path("text").write_bytes(TEXT)
    expect("unknown model of an archive", run("decompress", "foreign.lz", command=REAL))
    expect("unknown model asked for", run("compress", "-m", "nosuch", "text", command=REAL))
    expect("published model asked for", run("compress", "-m", "large", "text", command=REAL))
    expect("import of something else", run("models", "import", "text", command=REAL))
    assert sorted(os.listdir()) == ["foreign.lz", "text"]


def train(*args):
    """Run `llmzip train` in this process: each would import torch."""
    result = CliRunner().invoke(command.train, args)
    return subprocess.CompletedProcess(args, result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def corpus():
    """A folder with enough text."""
    Path("corpus").mkdir()
    Path("corpus/text").write_bytes(words(9000))
    return "corpus"


def test_text_that_cannot_be_trained_on():
    Path("empty").mkdir()
    Path("photos").mkdir()
    Path("photos/a").write_bytes(bytes(100))
    Path("short").write_bytes(TEXT)
    names = {"missing corpus": "nosuch", "empty folder": "empty", "only binary files": "photos"}
    names |= {"binary file named": "photos/a", "corpus that is a device": "/dev/null", "too little text": "short"}
    for what, name in names.items():
        expect(what, train(name, "-o", "m.safetensors"))
    assert sorted(os.listdir()) == ["empty", "photos", "short"]


def test_corpora_that_cannot_be_read():
    cut = gzip.compress(TEXT)[:-5]
    Path("downloads").mkdir()
    for name in ("cut.txt.gz", "downloads/a.gz", "downloads/b.gz"):
        Path(name).write_bytes(cut)
    Path("damaged.jsonl.xz").write_bytes(b"no xz at all")
    Path("posts.jsonl").write_bytes(b'{"id": 1, "body": "text"}\n')
    names = {"corpus cut short": "cut.txt.gz", "damaged corpus": "damaged.jsonl.xz", "no such field": "posts.jsonl"}
    names |= {"all files of a corpus damaged": "downloads"}
    names |= {"corpus behind a URL that is not there": "memory://nosuch.txt"}
    for what, name in names.items():
        expect(what, train(name, "-o", "m.safetensors", "--field", "text"))
    assert not Path("m.safetensors").exists()


@pytest.mark.usefixtures("one_thread")
def test_corpus_of_which_some_files_are_damaged():
    Path("some").mkdir()
    Path("some/a.gz").write_bytes(gzip.compress(TEXT)[:-5])
    Path("some/b.txt").write_bytes(words(9000))
    expect("some files damaged", train("some", "-o", "m.safetensors", *SMALL))
    assert Path("m.safetensors").exists()


def test_trainings_that_must_not_begin(corpus):
    Path("exists.safetensors").write_bytes(b"precious")
    Path("begun.train").mkdir()
    Path("begun.train/plan.json").write_bytes(b"{}")
    expect("model exists", train(corpus, "-q", "-o", "exists.safetensors"))
    expect("folder holds a training", train(corpus, "-q", "-o", "begun.safetensors"))
    expect("resumed with other text", train(corpus, "-q", "-o", "begun.safetensors", "--resume"))
    expect("unknown model to personalise", train(corpus, "-q", "-o", "m.safetensors", "--from", "nosuch"))
    assert Path("exists.safetensors").read_bytes() == b"precious"
    assert sorted(os.listdir()) == ["begun.train", "corpus", "exists.safetensors"]


SMALL = "-q", "-T", "1", "--width", "32", "--layers", "2", "--hidden", "64", "--vocab", "400", "--steps", "1"


class OneOfThree(Workers):
    """A process that does not wait for the others."""

    def wait(self):
        pass

    def leave(self):
        pass

    def wrap(self, module):
        return module


@pytest.mark.usefixtures("one_thread")
def test_trainings_that_cannot_go_on(corpus, monkeypatch):
    output = "-o", "begun.safetensors"
    assert train(corpus, *output, *SMALL).returncode == 0
    before = {path.name: path.read_bytes() for path in Path("begun.train").iterdir()}
    expect("resumed in another shape", train(corpus, *output, *SMALL, "--resume", "--width", "64"))
    expect("resumed with another seed", train(corpus, *output, *SMALL, "--resume", "--seed", "2"))
    expect("resumed with other lanes", train(corpus, *output, *SMALL, "--resume", "--lanes", "16"))
    monkeypatch.setattr(Workers, "join", lambda _: OneOfThree(count=3))
    what = "resumed with processes that cannot share the lanes"
    expect(what, train(corpus, *output, *SMALL, "--resume"))
    assert {path.name: path.read_bytes() for path in Path("begun.train").iterdir()} == before


@pytest.mark.usefixtures("one_thread")
def test_training_whose_loss_is_no_number(corpus, monkeypatch):
    new_model = build.new_model

    def broken(*arguments):
        model = new_model(*arguments)
        torch.nn.init.constant_(model.embedding.weight, math.nan)
        return model

    monkeypatch.setattr(build, "new_model", broken)
    expect("loss is no number", train(corpus, "-o", "m.safetensors", *SMALL))
    assert sorted(os.listdir()) == ["corpus", "m.train"]


def test_training_on_a_full_disk(corpus, small):
    with contextlib.suppress(OSError):
        (small / "filler").write_bytes(bytes(1 << 20))
    expect("disk full while training", train(corpus, "-q", "-o", "small/m.safetensors"))
    assert list((small / "m.train").iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_training_on_a_gpu_that_is_not_there(corpus):
    expect("no GPU", train(corpus, "-o", "m.safetensors", "--device", "cuda"))


def test_compiling_without_a_compiler(corpus):
    environment = {**ENVIRONMENT, "PATH": "/nowhere"}
    environment.pop("CXX", None)
    done = run("train", corpus, "-o", "m.safetensors", "--compile", command=REAL, env=environment)
    expect("no compiler", done)
    assert done.stderr.count("\n") == 1
    assert os.listdir() == [corpus]


def test_usage_of_train(corpus):
    output = "-o", "m.safetensors"
    expect("other suffix", train(corpus, "-o", "m.bin"))
    expect("personalised in another shape", train(corpus, *output, "--from", "default", "--width", "64"))
    expect("resumed and begun anew", train(corpus, *output, "--resume", "-f"))
    expect("odd width", train(corpus, *output, "--width", "33"))


def test_usage():
    expect("unknown option", run("compress", "--nosuch"))


def test_silent_ends():
    """The rows without a message: test_cli.py has more of them."""
    Path("a.lz").write_bytes(pack(bytes(3_000_000)))
    process = subprocess.Popen([*COMMAND, "decompress", "-c", "a.lz"], env=ENVIRONMENT, stdout=-1, stderr=-1)
    process.stdout.read(10)
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == (b"", -signal.SIGPIPE)
    process.stderr.close()
    ROWS.pop(r"reader went away (`llmzip decompress -c a.lz \| head`)")
    process = subprocess.Popen([*COMMAND, "compress", "-o", "b.lz"], env=ENVIRONMENT, stdin=-1, stderr=-1)
    process.stdin.write(noise(200_000))
    process.stdin.flush()
    deadline = time.monotonic() + 20
    while not written_so_far(process, Path.cwd()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert (process.communicate()[1], process.returncode) == (b"", -signal.SIGINT)
    assert os.listdir() == ["a.lz"]
    ROWS.pop("Ctrl-C")


def test_the_tests_above_cover_the_whole_page(request):
    names = {item.name.partition("[")[0] for item in request.session.items if item.path == Path(__file__)}
    if len(names) < 10:
        pytest.skip("not all of them were run")
    may_be_skipped = {"disk full", "no permission to read", "no permission to write"}  # the page says why
    may_be_skipped |= {"disk full while training", "no GPU"}
    assert set(ROWS) <= may_be_skipped
