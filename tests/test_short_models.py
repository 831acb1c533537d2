"""Short texts with models of a user, and with a dictionary."""

import pytest
from networks import tiny_model_file

import llmzip
from llmzip.api import short_coder

TEXTS = [
    b"a text that is short",
    b"another text",
    b"",
    b"x" * 700,
    b"the dictionary knows this line well",
    b"\xff\0\x80" * 9,
]


@pytest.fixture(params=[b"", b"the dictionary knows this line well, and more of its kind"], ids=["plain", "dictionary"])
def name(request, tmp_path, monkeypatch):
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "own.safetensors").write_bytes(tiny_model_file(3, dictionary=request.param))
    monkeypatch.setenv("LLMZIP_MODEL_PATH", str(folder))
    yield "own"
    short_coder._kept.clear()


def test_a_model_is_found_by_the_beginning_of_its_digest(name):
    archives = llmzip.compress_many(TEXTS, model=name)
    assert llmzip.decompress_many(archives) == TEXTS
    assert llmzip.decompress_many(archives, model=name) == TEXTS
    assert [llmzip.decompress(archive) for archive in archives] == TEXTS


def test_texts_do_not_depend_on_their_neighbours(name):
    codec = llmzip.Codec(name)
    assert [codec.encode(text) for text in TEXTS * 2] == codec.encode_many(TEXTS * 2)


def test_a_dictionary_makes_texts_that_it_knows_smaller(tmp_path):
    known = b"the dictionary knows this line well"
    sizes = []
    for dictionary in (b"", known + b", and more of its kind"):
        path = tmp_path / f"{len(sizes)}.safetensors"
        path.write_bytes(tiny_model_file(3, dictionary=dictionary))
        sizes.append(len(llmzip.Codec(str(path)).encode(known)))
    assert sizes[1] < sizes[0] - 10


def test_a_model_that_is_not_here_is_named(name, monkeypatch, tmp_path):
    archive = llmzip.Codec(name).encode(TEXTS[0])
    monkeypatch.setenv("LLMZIP_MODEL_PATH", str(tmp_path / "nothing"))
    with pytest.raises(llmzip.ModelError, match="which is not here"):
        llmzip.decompress(archive)


def test_another_model_is_refused(name):
    archive = llmzip.Codec(name).encode(TEXTS[0])
    with pytest.raises(llmzip.ModelMismatchError):
        llmzip.decompress(archive, model="default")


def test_damage_is_found(name):
    archive = bytearray(llmzip.Codec(name, check=4).encode(TEXTS[0]))
    archive[-1] ^= 0xFF
    with pytest.raises(llmzip.LlmzipError):
        llmzip.decompress(bytes(archive))
