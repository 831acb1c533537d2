import contextlib
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from texts import HARD, noise, words

from llmzip.coding.byte_coder import ByteCoder
from llmzip.errors import FormatError
from llmzip.mixing.initial_state import InitialState


@pytest.fixture(scope="module")
def byte_coder():
    return ByteCoder(InitialState.untrained(model=False))


@pytest.mark.parametrize("kind", HARD)
def test_round_trip_of_hard_texts(byte_coder, kind):
    data = HARD[kind]
    payload = byte_coder.encode(data, capacity=2 * len(data) + 64)
    assert byte_coder.decode(payload, len(data)) == data


@given(data=st.binary(min_size=1, max_size=400))
def test_round_trip_of_any_bytes(byte_coder, data):
    payload = byte_coder.encode(data, capacity=2 * len(data) + 64)
    assert byte_coder.decode(payload, len(data)) == data


def test_noise_is_refused(byte_coder):
    assert byte_coder.encode(noise(3000)) is None


def test_a_repeat_is_nearly_free(byte_coder):
    text = words(900)
    assert len(byte_coder.encode(text * 2)) < len(byte_coder.encode(text)) + 40


def test_no_truncation_gives_the_original(byte_coder):
    data = words(30)
    payload = byte_coder.encode(data)
    refused = 0
    for size in range(len(payload)):
        try:
            assert byte_coder.decode(payload[:size], len(data)) != data
        except FormatError:
            refused += 1
    assert refused > 0.9 * len(payload)


@given(payload=st.binary(max_size=300), size=st.integers(1, 3000))
def test_any_payload_ends_in_bytes_or_an_error(byte_coder, payload, size):
    with contextlib.suppress(FormatError):
        assert len(byte_coder.decode(payload, size)) == size


def test_progress_counts_every_byte(byte_coder):
    data, seen = words(15_000), []
    payload = byte_coder.encode(data, progress=seen.append)
    assert sum(seen) == len(data)
    seen.clear()
    byte_coder.decode(payload, len(data), progress=seen.append)
    assert sum(seen) == len(data)


PROGRAM = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from texts import words
from llmzip.coding.byte_coder import ByteCoder
from llmzip.mixing.initial_state import InitialState

data = words(60) * 2 + bytes(range(256))
coder = ByteCoder(InitialState.untrained(model=False))
payload = coder.encode(data)
assert coder.decode(payload, len(data)) == data
print(hashlib.sha256(payload).hexdigest())
"""


def test_the_interpreter_gives_the_same_bytes_without_a_warning(byte_coder):
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(Path(__file__).parent)]
    done = subprocess.run(
        command, env=os.environ | {"NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    payload = byte_coder.encode(words(60) * 2 + bytes(range(256)))
    assert done.stdout.strip() == hashlib.sha256(payload).hexdigest()
