"""The automatic choice: which frames the language model codes, which the mixer alone, and which are stored."""

import io
import struct
from collections import Counter

import pytest
from texts import ENGLISH, noise, words

from llmzip.api import frames, stream
from llmzip.coding.token_coder import Coded
from llmzip.container.format import BYTES, MODEL, STORED
from llmzip.container.reader import scan
from llmzip.model import registry

HALF = frames.CHOICE_BYTES // 2


def kind_of(data, model=None):
    """Return the kind of the only frame."""
    out = io.BytesIO()
    stream.compress_stream(io.BytesIO(data), out, model=model)
    (frame,) = scan(io.BytesIO(out.getvalue()))
    return frame.header.kind


# What is chosen for real data


def test_english_prose_is_coded_with_the_model():
    assert kind_of(ENGLISH.encode()) == MODEL


def test_records_of_numbers_are_coded_without_the_model():
    records = b"".join(struct.pack("<IHBB", 1_700_000_000 + 37 * i, i % 500, i % 7, 255) for i in range(300))
    assert kind_of(records) == BYTES


def test_short_noise_is_stored():
    assert kind_of(noise(2000)) == STORED


def test_model_that_knows_nothing_is_used_only_if_it_is_named(tiny, monkeypatch):
    monkeypatch.setattr(registry, "load", lambda _: tiny)
    text = words(500)
    assert kind_of(text) == BYTES
    assert kind_of(text, "tiny") == MODEL


# What it depends on: coders that take the size they are told


class Priced:
    """Code each byte at its own price, in bytes, and remember what was to be coded; one is made for each coder."""

    def __init__(self, prices, wrap):
        self.prices, self.wrap, self.seen = dict(zip(b"xab", prices, strict=True)), wrap, []

    def encode(self, data, **_):
        self.seen.append(data)
        size = int(sum(self.prices[byte] * count for byte, count in Counter(data).items()))
        return self.wrap(bytes(size), data) if size < len(data) else None


@pytest.fixture
def priced(tiny, monkeypatch):
    """Return a function that sets the prices of the bytes x, a and b, and returns model and mixer."""

    def new(of_model, of_mixer):
        model = Priced(of_model, lambda payload, data: Coded(payload, [len(data)]))
        mixer = Priced(of_mixer, lambda payload, _: payload)
        monkeypatch.setattr(registry, "load", lambda _: tiny)
        monkeypatch.setattr(frames, "token_coder_of", lambda *_: model)
        monkeypatch.setattr(frames, "byte_coder", lambda: (mixer, bytes(32)))
        return model, mixer

    return new


# What is around the sample costs the opposite, so that a sample from elsewhere would choose otherwise.
LONG = b"x" * (HALF - 1) + b"a" * HALF + b"b" * HALF + b"x" * (HALF - 1)
COSTLY, CHEAP = 0.9, 0.1


@pytest.mark.parametrize(
    ("of_model", "of_mixer", "kind"),
    [
        ((COSTLY, 0.2, 0.2), (CHEAP, 0.4, 0.4), MODEL),
        ((CHEAP, 0.4, 0.4), (COSTLY, 0.2, 0.2), BYTES),
        # Nearly a tie: what comes later decides.
        ((CHEAP, 0.30, 0.50), (COSTLY, 0.50, 0.35), BYTES),
        ((COSTLY, 0.50, 0.30), (CHEAP, 0.35, 0.50), MODEL),
        # Clear as a whole: it does not.
        ((COSTLY, 0.10, 0.50), (CHEAP, 0.80, 0.45), MODEL),
        # Lost as a whole, however narrowly: nor does it.
        ((CHEAP, 0.60, 0.30), (COSTLY, 0.40, 0.45), BYTES),
        ((CHEAP, 0.40, 0.40), (COSTLY, 0.40, 0.40), BYTES),
    ],
)
def test_sample_from_the_middle_of_a_long_frame_decides(priced, of_model, of_mixer, kind):
    model, _ = priced(of_model, of_mixer)
    assert kind_of(LONG) == kind
    assert model.seen[0] == b"a" * HALF + b"b" * HALF


@pytest.mark.parametrize(
    ("of_model", "of_mixer", "kind"),
    [((1, 0.30, 0.50), (1, 0.50, 0.35), MODEL), ((1, 0.50, 0.35), (1, 0.30, 0.50), BYTES)],
)
def test_all_of_a_short_frame_decides_even_if_it_is_nearly_a_tie(priced, of_model, of_mixer, kind):
    model, _ = priced(of_model, of_mixer)
    text = b"a" * HALF + b"b" * HALF
    assert kind_of(text) == kind
    assert set(model.seen) == {text}


def test_model_that_is_named_is_used_without_asking(priced):
    model, mixer = priced((0.5, 0.5, 0.5), (0.1, 0.1, 0.1))
    assert kind_of(LONG, "tiny") == MODEL
    assert (model.seen, mixer.seen) == ([LONG], [])


def test_model_is_not_asked_where_none_was_wanted(priced):
    model, mixer = priced((0.1, 0.1, 0.1), (0.5, 0.5, 0.5))
    assert kind_of(LONG, registry.NONE) == BYTES
    assert (model.seen, mixer.seen) == ([], [LONG])


@pytest.mark.parametrize("model", [None, "default"])
def test_long_noise_is_stored_without_trying_the_model(monkeypatch, model):
    monkeypatch.delattr(frames, "token_coder_of")
    assert kind_of(noise(8 * frames.PROBE_BYTES), model) == STORED


@pytest.mark.parametrize("quarter", range(4))
def test_text_in_any_quarter_of_long_noise_is_hope(quarter):
    size = 2 * frames.PROBE_BYTES
    parts = [noise(size, seed) for seed in range(4)]
    parts[quarter] = words(size // 4)[:size]
    assert kind_of(b"".join(parts), registry.NONE) == BYTES
