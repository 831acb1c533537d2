"""``llmzip train``: from a folder of text to a model that compresses, whatever happens on the way."""

from __future__ import annotations

import bz2
import contextlib
import errno
import fcntl
import gzip
import itertools
import json
import lzma
import os
import pty
import random
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from texts import words

from llmzip.api import stream
from llmzip.cli.train import train
from llmzip.coding.token_coder import TokenCoder
from llmzip.errors import HardwareError, ModelError
from llmzip.model import registry
from llmzip.model.file import Model, read
from llmzip.tools import selftest
from llmzip.tools.doctor import replay
from llmzip.tools.token_probabilities import exact_bits
from llmzip.training import mixer
from llmzip.training.build import build
from llmzip.training.export import between, export, restore
from llmzip.training.request import PERSONAL_ALPHA, Request
from llmzip.training.survey import survey
from llmzip.training.trainer import Trainer, load_model

COMMAND = [sys.executable, "-m", "llmzip", "train"]
SHAPE = {"width": 32, "layers": 2, "hidden": 64, "vocab": 400}
OPTIONS = [text for name, value in SHAPE.items() for text in (f"--{name}", str(value))] + ["-T", "1"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Return a folder with 40 KB of text in 15 documents."""
    folder = tmp_path_factory.mktemp("corpus")
    texts = [words(400, seed) for seed in range(15)]
    (folder / "letters").mkdir()
    (folder / "letters" / "a.txt").write_bytes(b"\x1e\n".join(texts[:10]))
    (folder / "notes_1.txt").write_bytes(b"\x1e\n".join(texts[10:]))
    return folder


def log(lines: int, seed: int) -> bytes:
    """Return a log: another kind of text."""
    rng = random.Random(seed)
    kinds = ("INFO [core] started worker", "WARN [net] retrying connection to host", "INFO [db] committed batch")
    times = itertools.accumulate(rng.randrange(9) for _ in range(lines))
    return "".join(
        f"07:{t // 60 % 60:02}:{t % 60:02} {rng.choice(kinds)} {rng.randrange(50)}\n" for t in times
    ).encode()


def metrics(path: Path) -> list[dict[str, float]]:
    """Return what was logged while this model was trained."""
    lines = (path.with_suffix(".train") / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def weights_of(model: Model) -> list[np.ndarray]:
    w = model.weights
    return [m.q for m in (w.embedding, w.head_cluster, w.head_token, *(m for x in w.layers for m in x.matrices()))]


def same_weights(a: Path, b: Path) -> bool:
    pairs = zip(weights_of(read(a)), weights_of(read(b)), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory) -> Path:
    """Return a model trained for 30 steps."""
    path = tmp_path_factory.mktemp("trained") / "mine.safetensors"
    build(Request((corpus,), path, steps=30, quiet=True, **SHAPE))
    return path


# What it makes


def test_trained_model_compresses_and_archives_name_it(trained: Path, monkeypatch) -> None:
    text = words(600, 99)
    monkeypatch.delenv(registry.SEARCH_PATH, raising=False)
    archive = stream.compress(text, model=str(trained))
    assert len(archive) < 0.5 * len(text)
    assert read(trained).digest[:8] in archive
    with pytest.raises(ModelError, match="LLMZIP_MODEL_PATH"):
        stream.decompress(archive)
    monkeypatch.setenv(registry.SEARCH_PATH, str(trained.parent))
    assert stream.decompress(archive) == text


def test_training_leaves_a_card_and_metrics(trained: Path) -> None:
    card = trained.with_suffix(".md").read_text()
    assert read(trained).digest.hex() in card
    for domain in ("letters", "notes", "all"):
        row = next(line for line in card.splitlines() if line.startswith(f"| {domain} |"))
        size, archive, exact, floating = (float(cell) for cell in row.split("|")[2:6])
        assert size > 0
        assert archive < 8
        assert exact == pytest.approx(floating, rel=0.02)
    lines = metrics(trained)
    losses = [line["bits_per_byte"] for line in lines if "bits_per_byte" in line]
    assert losses[-1] < 0.95 * losses[0]
    assert lines[-1]["step"] == 30
    assert "heldout_bits_per_byte" in lines[-1]


def test_same_seed_gives_the_same_file(corpus: Path, trained: Path, tmp_path: Path) -> None:
    again, other = (tmp_path / name / trained.name for name in ("again", "other"))
    for path, seed in ((again, 1), (other, 2)):
        path.parent.mkdir()
        build(Request((corpus,), path, steps=30, seed=seed, quiet=True, **SHAPE))
    assert again.read_bytes() == trained.read_bytes()
    assert not same_weights(other, trained)


def test_self_test_passes_here_and_fails_where_something_is_computed_differently(trained: Path) -> None:
    model = read(trained)
    selftest.verify(model)
    wrong = {**model.info["selftest"], "network_sha256": "0" * 64}
    with pytest.raises(HardwareError, match="exactly"):
        selftest.verify(replace(model, info={"selftest": wrong}))
    replay(model)
    with pytest.raises(HardwareError, match="exactly"):
        replay(replace(model, info={"selftest": wrong}))
    wrong = {**model.info["selftest"], "payload": "AAAA"}
    with pytest.raises(ModelError, match="codes differently"):
        selftest.verify(replace(model, info={"selftest": wrong}))
    with pytest.raises(ModelError, match="no self-test"):
        selftest.verify(replace(model, info={}))


def test_personalised_model_keeps_tokens_and_clusters_and_knows_the_new_text(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_bytes(log(600, 1))
    path = tmp_path / "own.safetensors"
    build(Request((tmp_path / "own.txt",), path, base=str(trained), steps=120, quiet=True))
    before, after = read(trained), read(path)
    assert after.tokenizer.tokens == before.tokenizer.tokens
    assert np.array_equal(after.weights.cluster_starts, before.weights.cluster_starts)
    assert after.weights.width == 32
    bits = [exact_bits(TokenCoder(model), log(60, 2), 1) for model in (before, after)]
    assert bits[1] < 0.8 * bits[0]
    tuned = load_model(path.with_suffix(".train") / "best.pt")
    halfway = export(between(restore(before.weights), tuned, PERSONAL_ALPHA))
    assert np.array_equal(after.weights.embedding.q, halfway.embedding.q)
    assert not np.array_equal(after.weights.embedding.q, export(tuned).embedding.q)


def test_personalised_model_holds_the_text_unless_told_not_to(trained: Path, tmp_path: Path, capsys) -> None:
    own = tmp_path / "own.txt"
    own.write_bytes(log(600, 1))

    def dictionary(name: str, **options: Any) -> tuple[bytes, str, str]:
        path = tmp_path / name
        build(Request((own,), path, steps=1, **options))
        model = read(path)
        text = model.tokenizer.decode(model.dictionary)
        assert model.info["training"]["dictionary"] == len(text)
        return text, path.with_suffix(".md").read_text(), capsys.readouterr().err

    text, card, messages = dictionary("whole.safetensors", base=str(trained))
    assert own.read_bytes().startswith(text)  # all but what is held out
    assert len(text) == survey([own], 1).train_bytes
    assert f"**{len(text)} bytes of the text are part of the model, word for word.**" in card
    assert "dictionary: " in messages
    text, card, messages = dictionary("part.safetensors", base=str(trained), dictionary=1000)
    assert 900 < len(text) <= 1000
    for options in ({"base": str(trained), "dictionary": 0}, SHAPE):
        name = f"without-{len(options)}.safetensors"
        text, card, messages = dictionary(name, **options)
        assert text == b""
        assert "word for word" not in card
        assert "dictionary" not in messages


def test_the_initial_state_of_the_mixer_is_retrained_if_there_is_enough_text(
    corpus: Path, trained: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    def start(path: Path) -> bytes:
        return read(path).initial_state.weights.tobytes()

    sentence = "The initial state of the mixer was trained on the same text"
    assert start(trained) == registry.load(registry.DEFAULT).initial_state.weights.tobytes()
    assert sentence not in trained.with_suffix(".md").read_text()
    monkeypatch.setattr(mixer, "LEAST_BYTES", 1000)
    path = tmp_path / "m.safetensors"
    build(Request((corpus,), path, base=str(trained), steps=1))
    assert "mixer: initial state retrained" in capsys.readouterr().err
    assert start(path) != start(trained)
    assert sentence in path.with_suffix(".md").read_text()
    selftest.verify(read(path))


# What it is made of


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Return a folder of compressed JSON lines, a cut of a dump, a book, a damaged file and a picture."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    records = [{"text": words(200, seed).decode(), "id": seed} for seed in range(30)]
    (folder / "posts.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, records)).encode()))
    pages = [(0, words(300, 50).decode()), (0, words(300, 51).decode()), (1, "Talk")]
    dump = "".join(f"<page><ns>{ns}</ns><revision><text>{text}</text></revision></page>" for ns, text in pages)
    (folder / "wiki.xml.bz2").write_bytes(bz2.compress(f"<mediawiki>{dump}</mediawiki>".encode()))
    marker = b"*** %s OF THE PROJECT GUTENBERG EBOOK ***\n"
    (folder / "book.txt").write_bytes(marker % b"START" + words(900, 60) + marker % b"END" + b"LICENCE\n" * 100)
    (folder / "damaged.txt.xz").write_bytes(lzma.compress(words(900))[:-9])
    (folder / "photo.jpg").write_bytes(b"\xff\xd8\0")
    return folder


def test_corpora_of_all_kinds_train_and_the_card_says_what_was_left_out(mixed: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    arguments = [str(mixed), "-o", str(path), *OPTIONS, "--field", "text", "--steps", "10"]
    result = CliRunner().invoke(train, arguments)
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    assert lines[0] == f"llmzip: {mixed / 'damaged.txt.xz'}: is cut short (fetch it again); skipped"
    assert re.fullmatch(
        r"survey: 3 files \(1 JSON Lines, 1 MediaWiki dump, 1 text\), 33 documents, .* KB, of which .* held out",
        lines[1],
    )
    left_out = (
        "1 binary files, 1 files that cannot be read, 1 headers and footers of Project Gutenberg, "
        "1 pages outside namespace 0"
    )
    assert lines[2] == f"left out: {left_out}"
    card = path.with_suffix(".md").read_text()
    assert f"Left out: {left_out}.\n" in card
    assert "3 files (1 JSON Lines, 1 MediaWiki dump, 1 text), 33 documents" in card
    assert b"LICENCE" not in b"".join(b"".join(parts) for parts in survey([mixed], 1).training_texts())
    assert stream.decompress(stream.compress(words(300, 99), model=str(path)), model=str(path)) == words(300, 99)


def test_corpus_behind_a_url_is_fetched_once(corpus: Path, tmp_path: Path, monkeypatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.put(str(corpus), "/corpus", recursive=True)
    path = tmp_path / "m.safetensors"
    monkeypatch.setattr(sys, "argv", ["llmzip", "train", "https://me:secret@host/corpus?key=secret"])
    arguments = ["memory://corpus", "-o", str(path), *OPTIONS, "-q"]
    assert CliRunner().invoke(train, [*arguments, "--steps", "5"]).exit_code == 0
    memory.rm("/corpus/letters", recursive=True)
    memory.store.clear()
    memory.put(str(corpus / "notes_1.txt"), "/corpus/notes_1.txt")
    resumed = CliRunner().invoke(train, [*arguments, "--steps", "10", "--resume"])
    assert (resumed.exit_code, resumed.stderr) == (0, "")
    card = path.with_suffix(".md").read_text()
    assert "15 documents" in card
    assert "llmzip train https://host/corpus\n" in card
    anew = CliRunner().invoke(train, [*arguments, "--steps", "5", "-f"])
    memory.store.clear()
    assert anew.exit_code == 1
    assert "bytes of text are too little" in anew.stderr


# Interruptions


def run(corpus: Path, output: Path, *options: str) -> subprocess.Popen:
    command = [*COMMAND, str(corpus), "-o", str(output), *OPTIONS, *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_for_steps(folder: Path, process: subprocess.Popen) -> None:
    """Wait until a few steps are in the metrics."""
    deadline = time.monotonic() + 100
    while process.poll() is None and time.monotonic() < deadline:
        path = folder / "metrics.jsonl"
        if path.exists() and path.read_text().count("\n") >= 2 and (folder / "checkpoint.pt").exists():
            return
        time.sleep(0.01)
    raise AssertionError(process.communicate())


def test_training_killed_in_the_middle_resumes_to_the_same_model(corpus: Path, tmp_path: Path) -> None:
    whole, cut = (tmp_path / name / "m.safetensors" for name in ("whole", "cut"))
    for path in (whole, cut):
        path.parent.mkdir()
    steps = ("--steps", "400", "--checkpoint-seconds", "0", "-q")
    killed = run(corpus, cut, *steps)
    wait_for_steps(cut.parent / "m.train", killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not cut.exists()
    resumed = run(corpus, cut, *steps, "--resume")
    assert resumed.communicate() == (None, "")
    build(Request((corpus,), whole, steps=400, quiet=True, **SHAPE))
    assert cut.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_exports_what_there_is(corpus: Path, tmp_path: Path, number: int) -> None:
    path = tmp_path / "m.safetensors"
    process = run(corpus, path, "--minutes", "10", "--checkpoint-seconds", "0")
    wait_for_steps(tmp_path / "m.train", process)
    process.send_signal(number)
    _, told = process.communicate()
    assert process.returncode == 0
    assert "interrupted at step" in told
    selftest.verify(read(path))


INTERRUPTED_TWICE = """
import signal
from llmzip.__main__ import main
from llmzip.training.trainer import Trainer

def step(trainer):
    signal.raise_signal(NUMBER)
    print("goes on", flush=True)
    signal.raise_signal(NUMBER)
    print("and on", flush=True)

Trainer.train_step = step
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_second_signal_ends_at_once(corpus: Path, tmp_path: Path, number: int) -> None:
    # Within one step, as a step may take minutes.
    path = tmp_path / "m.safetensors"
    command = [sys.executable, "-c", INTERRUPTED_TWICE.replace("NUMBER", str(int(number)))]
    command += ["train", str(corpus), "-o", str(path), *OPTIONS, "-q"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-number, "goes on\n", "")
    assert not path.exists()


def test_resuming_before_the_first_checkpoint_begins_anew(corpus: Path, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "m.safetensors"
    request = Request((corpus,), path, steps=10, quiet=True, **SHAPE)

    def killed(_: Trainer) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            build(request)
    with (tmp_path / "m.train" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "half a li')
    build(replace(request, resume=True))
    heldout = [line["step"] for line in metrics(path) if "heldout_bits_per_byte" in line]
    assert heldout == list(range(1, 11))


def test_progress_is_shown_on_a_terminal_only(corpus: Path, tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 40, 130, 0, 0))
    command = [*COMMAND, str(corpus), "-o", str(tmp_path / "m.safetensors"), *OPTIONS, "--steps", "20"]
    process = subprocess.Popen(command, stderr=follower)
    os.close(follower)
    shown = b""
    with contextlib.suppress(OSError):  # what the end is on a terminal
        while part := os.read(leader, 4096):
            shown += part
    os.close(leader)
    assert process.wait() == 0
    bar = shown.decode().replace("\n", "\r").split("\r")
    assert any(
        re.search(r"100 %\|.*\| \d\d:\d\d<.*, \d\.\d+ bits/byte, held-out .*, [\d,]+ tokens/s", line) for line in bar
    )
    process = run(corpus, tmp_path / "m.safetensors", "--steps", "20", "-f")
    _, told = process.communicate()
    assert "export:" in told
    assert "%|" not in told


def test_two_processes_train_as_one(corpus: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    build(Request((corpus,), one, steps=40, quiet=True, **SHAPE))
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "llmzip",
        "train",
    ]
    options = [str(corpus), "-o", str(two), *OPTIONS, "--steps", "40", "-q"]
    subprocess.run([*launch, *options], check=True, capture_output=True)

    def losses(path: Path) -> dict[tuple[float, str], float]:
        kinds = "bits_per_byte", "heldout_bits_per_byte"
        return {(line["step"], kind): line[kind] for line in metrics(path) for kind in kinds if kind in line}

    # They differ by 1e-7; without averaged gradients by 2e-2.
    assert losses(two) == pytest.approx(losses(one), rel=1e-3)


# Errors


def failing(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(train, [str(a) for a in arguments])
    return result.exit_code, result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "corpus: holds no files (give files of text, or folders with them)"),
        ({"x.bin": b"a\0b"}, "corpus: holds binary files only (give files of text, or folders with them)"),
        ({"x.txt": b"short"}, "corpus: 5 bytes of text are too little to train on (give at least 20000)"),
    ],
)
def test_unfit_corpus_is_one_line_and_exit_code_1(
    content: dict[str, bytes], message: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("corpus").mkdir()
    for name, data in content.items():
        (Path("corpus") / name).write_bytes(data)
    assert failing("corpus", "-o", "m.safetensors") == (1, f"llmzip: {message}\n")
    assert os.listdir() == ["corpus"]


def test_missing_binary_and_existing_files_are_told(corpus: Path, trained: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    output = ("-o", "m.safetensors")
    assert failing("nosuch", *output) == (1, "llmzip: nosuch: No such file or directory\n")
    assert failing("/dev/null", *output)[1].startswith("llmzip: /dev/null: is no regular file")
    assert failing(trained, *output)[1].startswith(f"llmzip: {trained}: is binary")
    assert failing(corpus, "-o", trained) == (1, f"llmzip: {trained}: exists already (use -f to overwrite it)\n")
    folder = trained.with_suffix(".train")
    code, told = failing(corpus, *output, "--work", folder, *OPTIONS, "-q")
    assert (code, told) == (
        1,
        f"llmzip: {folder}: holds a training already (use --resume to go on, -f to begin anew)\n",
    )
    code, told = failing(corpus, *output, "--work", folder, "--resume", "--width", "64", "-q")
    assert (code, told.split(": ", 2)[2]) == (1, "was begun with another shape (give the same, or use -f)\n")
    code, told = failing(corpus, *output, "--work", folder, "--resume", *OPTIONS, "--dictionary", "5", "-q")
    assert (code, told.split(": ", 2)[2]) == (1, "was begun with another dictionary (give the same, or use -f)\n")


@pytest.mark.parametrize(
    "wrong",
    [
        ["-o", "m.bin"],
        ["-o", "m.safetensors", "--from", "default", "--width", "64"],
        ["-o", "m.safetensors", "--resume", "-f"],
        ["-o", "m.safetensors", "--width", "33"],
        ["-o", "m.safetensors", "--size", "huge"],
        [],
    ],
)
def test_wrong_usage_has_exit_code_2(wrong: list[str], corpus: Path) -> None:
    assert failing(corpus, *wrong)[0] == 2


def test_full_disk_is_told_and_training_goes_on_later(corpus: Path, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "m.safetensors"
    options = (corpus, "-o", path, *OPTIONS, "--steps", "10", "-q")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        code, told = failing(*options)
    assert code == 1
    assert told.startswith(f"llmzip: {tmp_path / 'm.train' / 'plan.json'}: No space left on device (")
    assert list((tmp_path / "m.train").iterdir()) == []
    assert failing(*options, "--resume") == (0, "")
    assert path.exists()


def test_help_of_train_needs_neither_torch_nor_numba() -> None:
    code = "import sys; from llmzip.cli import cli; cli(['train', '--help'], standalone_mode=False); "
    code += "sys.exit(bool({'torch', 'numba'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "--checkpoint-seconds" in shown
