import dataclasses
import json
import shutil

import numpy as np
import pytest
from networks import tiny_model_file
from texts import words

from llmzip import cli
from llmzip.coding.token_coder import TokenCoder
from llmzip.errors import HardwareError
from llmzip.model import registry
from llmzip.model.file import dump
from llmzip.network import matmul
from llmzip.tools import doctor, selftest


@pytest.fixture
def run(capfd):
    def call(*args):
        with pytest.raises(SystemExit) as info:
            cli.cli(args, prog_name="llmzip")
        out, err = capfd.readouterr()
        return info.value.code, out, err

    return call


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(doctor, "sample", lambda size=2000: words(1000)[:size])


def test_every_backend_and_thread_setting_is_compared(run, tiny_file, monkeypatch):
    monkeypatch.setattr(doctor, "usable_cores", lambda: 3)
    code, out, err = run("doctor", "-m", str(tiny_file))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert all(line.startswith("ok   ") for line in lines)
    for name in matmul.BINDERS:
        for threads in ("1 thread", "3 threads"):
            (line,) = [line for line in lines if line.startswith(f"ok   {name}, {threads}: ")]
            assert "same bytes" in line
            assert "KB/s" in line


def test_a_difference_is_told(run, tiny_file, monkeypatch):
    encode = TokenCoder.encode

    def differ(self, data, **options):
        coded = encode(self, data, **options)
        if coded and self.threads == 2:
            return dataclasses.replace(coded, payload=coded.payload + b"x")
        return coded

    monkeypatch.setattr(doctor, "usable_cores", lambda: 2)
    monkeypatch.setattr(TokenCoder, "encode", differ)
    code, out, _ = run("doctor", "-m", str(tiny_file))
    assert code == 1
    bad = [line for line in out.splitlines() if line.startswith("BAD")]
    assert [line.partition(":")[0] for line in bad] == [f"BAD  {name}, 2 threads" for name in matmul.BINDERS]


def test_errors_of_the_machine_are_told(run, tiny_file, monkeypatch):
    def fail(*_, **__):
        raise HardwareError("flushes denormals")

    monkeypatch.setattr(TokenCoder, "decode", fail)
    code, out, _ = run("doctor", "-m", str(tiny_file))
    assert code == 1
    assert "BAD  int16, 1 thread: flushes denormals" in out


def test_a_backend_that_is_wrong_here_is_not_used(run, tiny_file, monkeypatch):
    def wrong(_weight):
        return lambda _q, acc: np.copyto(acc, 7)

    monkeypatch.setitem(matmul.BINDERS, "int8", wrong)
    code, out, _ = run("doctor", "-m", str(tiny_file))
    assert code == 0
    assert "ok   backend int8: not exact here, and therefore never used" in out
    assert "int8, 1 thread" not in out


def test_the_self_test_of_the_model_is_replayed(run, tiny, tmp_path):
    for info, line in (
        (selftest.make(tiny), "ok   self-test: the same bytes"),
        (selftest.make(tiny) | {"network_sha256": "0" * 64}, "BAD  self-test: this machine does not compute"),
    ):
        path = tmp_path / "tested.safetensors"
        path.write_bytes(dump(tiny.weights, tiny.tokenizer, {**tiny.info, "selftest": info}, tiny.initial_state))
        code, out, _ = run("doctor", "-m", str(path))
        assert (code, line in out) == (int(line.startswith("BAD")), True), out


def test_the_sample_has_what_models_meet(monkeypatch):
    monkeypatch.undo()
    text = doctor.sample()
    assert len(text) == doctor.SAMPLE_BYTES
    assert "狐狸".encode() in text


# Models


def test_models_are_listed(run, tiny_file):
    code, out, _ = run("models", "list", "--json")
    assert code == 0
    shipped, own, published = json.loads(out)
    ((number, (_, digest)),) = registry.SHIPPED.items()
    assert (shipped["name"], shipped["number"]) == ("default", number)
    assert shipped["identity"] == digest[:16]
    assert (own["name"], own["number"], own["path"]) == ("tiny", None, str(tiny_file))
    assert own["bytes"] == tiny_file.stat().st_size
    assert (published["name"], published["number"], published["path"]) == ("smollm2-135m", 5, None)
    rows = [line.split() for line in run("models", "list")[1].splitlines()]
    assert [row[:2] for row in rows[:3]] == [["name", "number"], ["default", str(number)], ["tiny", "-"]]
    assert rows[3][0] == "smollm2-135m"


def test_cards_and_paths(run, tiny_file):
    assert run("models", "card")[1].startswith("---\nlanguage:")
    assert json.loads(run("models", "card", "tiny")[1])["name"] == "tiny-0"
    tiny_file.with_suffix(".md").write_text("# Tiny\n")
    assert run("models", "card", str(tiny_file))[1] == "# Tiny\n"
    assert run("models", "path", "tiny")[1] == f"{tiny_file}\n"
    code, out, err = run("models", "path", "nosuch")
    assert (code, out) == (1, "")
    assert err.startswith("llmzip: nosuch: there is no model called nosuch")


def test_sound_models_pass(run, tiny_file):
    code, out, err = run("models", "verify", "tiny", str(tiny_file), "none")
    assert (code, err) == (0, "")
    assert [line.partition(":")[0] for line in out.splitlines()] == ["tiny", str(tiny_file), "none"]
    assert all("sound (" in line for line in out.splitlines())


def test_damaged_and_exchanged_models_do_not_pass(run, tmp_path, monkeypatch):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(tiny_model_file()[:-100])
    code, out, err = run("models", "verify", str(damaged))
    assert (code, out) == (1, "")
    assert err.startswith(f"llmzip: {damaged}: ")
    exchanged = tmp_path / "default.safetensors"
    exchanged.write_bytes(tiny_model_file())
    shutil.copy(registry.shipped_folder() / "none.safetensors", tmp_path)
    monkeypatch.setattr(registry, "shipped_folder", lambda: tmp_path)
    code, _, err = run("models", "verify")
    assert (code, err) == (1, "llmzip: default: is not the model of that name (install llmzip again)\n")
    monkeypatch.setattr(registry, "SHIPPED", {})
    monkeypatch.setenv("LLMZIP_MODEL_PATH", str(exchanged))
    monkeypatch.setattr(TokenCoder, "decode", lambda *_, **__: b"something else")
    assert "does not decompress what it has compressed" in run("models", "verify")[2]
