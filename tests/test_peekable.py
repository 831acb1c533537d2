"""Streams with a look ahead."""

import io

import pytest
from archives import Pipe
from hypothesis import given
from hypothesis import strategies as st

from llmzip.container.peekable import PeekableStream
from llmzip.errors import TruncatedError

STEPS = st.lists(st.tuples(st.sampled_from(["peek", "skip", "read", "take"]), st.integers(0, 30)), max_size=20)


@given(st.binary(max_size=100), STEPS, st.sampled_from([io.BytesIO, Pipe]))
def test_every_byte_comes_once_and_in_order(data, steps, kind):
    stream, at = PeekableStream(kind(data)), 0
    for step, size in steps:
        if step in ("skip", "read") and at + size > len(data):
            continue
        found = getattr(stream, step)(size)
        if step != "skip":
            assert found == data[at : at + size]
        if step != "peek":
            at = min(at + size, len(data))
        assert stream.position == at


@pytest.mark.parametrize("kind", [io.BytesIO, Pipe])
def test_reading_too_much_takes_nothing(kind):
    stream = PeekableStream(kind(b"three"))
    with pytest.raises(TruncatedError):
        stream.read(6)
    assert stream.take(6) == b"three"


@pytest.mark.parametrize("kind", [io.BytesIO, Pipe])
def test_skipping_beyond_the_end_is_an_error(kind):
    with pytest.raises(TruncatedError):
        PeekableStream(kind(b"three")).skip(6)
