"""What all parts of the interface have in common: errors, types of arguments, names of models."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
from frames import FRAME, TEXT
from texts import noise

import llmzip

pytestmark = pytest.mark.usefixtures("small_frames")


def test_errors_are_caught_as_those_of_gzip_and_as_ones_of_llmzip(archive):
    for data, kinds in [
        (b"plain text", (llmzip.FormatError, OSError)),
        (archive[:-1], (llmzip.TruncatedError, EOFError)),
        (archive[:600] + b"?" + archive[601:], (OSError, llmzip.LlmzipError)),
    ]:
        for kind in kinds:
            with pytest.raises(kind):
                llmzip.decompress(data)


def test_errors_survive_pickling():
    for error in (llmzip.FormatError("a"), llmzip.TruncatedError("b"), llmzip.FileError("name", "c")):
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 - what was just made
        assert (type(again), str(again)) == (type(error), str(error))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_whatever_holds_bytes_is_taken(kind):
    data = kind(TEXT)
    archive = kind(llmzip.compress(data, threads=1))
    assert llmzip.decompress(archive, threads=1) == TEXT
    assert llmzip.get_frame_info(archive).decompressed_size == FRAME
    compressor = llmzip.Compressor(threads=1)
    assert compressor.compress(data) + compressor.flush() == archive
    assert llmzip.Decompressor(threads=1).decompress(archive) == TEXT


@pytest.mark.parametrize("data", [TEXT, noise(300)], ids=["without a model", "stored"])
def test_a_model_that_is_named_must_be_there(data):
    archive = llmzip.compress(data, model="none")
    assert llmzip.decompress(archive, model="none") == data
    with pytest.raises(llmzip.ModelError, match="no model called nosuch"):
        llmzip.decompress(archive, model="nosuch")


@pytest.mark.parametrize("wrong", [None, "text", 5, [1, 2], object()])
def test_what_holds_no_bytes_is_a_type_error(wrong):
    writer = llmzip.open(io.BytesIO(), "wb", model="none")
    calls = [
        llmzip.compress,
        llmzip.decompress,
        llmzip.Compressor(model="none").compress,
        llmzip.Decompressor().decompress,
        llmzip.get_frame_info,
        writer.write,
    ]
    for call in calls:
        with pytest.raises(TypeError):
            call(wrong)
    writer.close()


@pytest.mark.parametrize("empty", [b"", bytearray(), np.empty(0, np.uint8), np.empty((0, 3)), np.empty((2, 0, 1))])
def test_empty_buffers_are_taken(empty):
    archive = llmzip.compress(empty, model="none")
    assert llmzip.decompress(archive) == b""
    compressor = llmzip.Compressor(model="none")
    assert compressor.compress(empty) + compressor.flush() == archive
    assert llmzip.Decompressor().decompress(empty) == b""
    written = io.BytesIO()
    with llmzip.open(written, "wb", model="none") as file:
        assert file.write(empty) == 0
    assert written.getvalue() == archive


def test_an_empty_buffer_to_read_into():
    file = llmzip.open(io.BytesIO(llmzip.compress(b"text", model="none")))
    assert file.readinto(np.empty((0, 3))) == 0
    assert file.readinto(bytearray()) == 0
    assert file.read() == b"text"


def test_arrays_are_their_bytes():
    array = np.arange(12, dtype=np.int32).reshape(3, 4)
    assert llmzip.decompress(llmzip.compress(array, model="none")) == array.tobytes()
    with pytest.raises(TypeError):
        llmzip.compress(array.T, model="none")


@pytest.mark.parametrize("make", [llmzip.Compressor, llmzip.Decompressor, lambda: llmzip.open(io.BytesIO(), "wb")])
def test_what_has_a_state_cannot_be_copied(make):
    one = make()
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot pickle"):
            copied(one)
