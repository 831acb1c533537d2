"""What all parts of the interface have in common: errors, types of arguments, names of models."""

from __future__ import annotations

import pickle

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
