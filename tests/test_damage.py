"""Whatever happens to an archive: its content or an LlmzipError; no other bytes, no other exception."""

from __future__ import annotations

import io
import itertools
import random
import sys
import tracemalloc

import helpers
import pytest
from damage import FRAMES, ORIGINAL, OTHER, compress, decompress, parts_of, refused, salvage, some
from texts import noise

from llmzip import cli
from llmzip.container.format import SYNC, TRAILER
from llmzip.container.reader import scan
from llmzip.errors import TruncatedError


def test_the_archive_is_what_these_tests_need(codec):
    archive = compress(codec, ORIGINAL)
    assert decompress(codec, archive) == ORIGINAL
    assert [bool(frame.header.kind) for frame in scan(io.BytesIO(archive))].count(False) == 1
    assert len(parts_of(archive).frames) == len(FRAMES) == 6


def test_truncation_at_every_byte_of_headers_and_trailer(codec):
    archive = compress(codec, ORIGINAL)
    parts = parts_of(archive)
    starts = [0, *itertools.accumulate(map(len, parts.frames))]
    cuts = {at + i for at, head in zip(starts, parts.heads, strict=False) for i in range(head + 2)}
    cuts |= set(range(starts[-1] - 1, len(archive)))
    for size in some(codec, range(len(archive)) if codec is helpers else cuts):
        with pytest.raises(TruncatedError):
            decompress(codec, archive[:size])


def test_every_flipped_bit_outside_the_payloads_is_found(codec):
    archive = compress(codec, ORIGINAL)
    parts = parts_of(archive)
    starts = [0, *itertools.accumulate(map(len, parts.frames))]
    places = [at + i for at, head in zip(starts, parts.heads, strict=False) for i in range(head)]
    places += range(starts[-1], len(archive))
    for at, bit in some(codec, itertools.product(places, range(8))):
        damaged = bytearray(archive)
        damaged[at] ^= 1 << bit
        assert refused(codec, bytes(damaged))


def test_every_flipped_bit_of_a_small_archive_is_found(codec):
    content = b"It was the best of the bridges."
    archive = compress(codec, content)
    for at, bit in itertools.product(range(len(archive)), range(8)):
        damaged = bytearray(archive)
        damaged[at] ^= 1 << bit
        # Some bits of the arithmetic coder's last byte may have either value.
        assert refused(codec, bytes(damaged), content) or at == len(archive) - 1


@pytest.mark.parametrize("size", [0, 1, 40])
def test_flipped_bits_of_stored_archives_are_found(codec, size):
    archive = compress(codec, noise(size))
    for at, bit in itertools.product(range(len(archive)), range(8)):
        damaged = bytearray(archive)
        damaged[at] ^= 1 << bit
        assert refused(codec, bytes(damaged))


def test_frames_that_are_swapped_dropped_or_doubled(codec):
    frames, _, trailer = parts_of(compress(codec, ORIGINAL))
    for i, j in itertools.combinations(range(len(frames)), 2):
        swapped = frames.copy()
        swapped[i], swapped[j] = swapped[j], swapped[i]
        assert refused(codec, b"".join([*swapped, trailer]))
    for i in range(len(frames)):
        assert refused(codec, b"".join([*frames[:i], *frames[i + 1 :], trailer]))
        assert refused(codec, b"".join([*frames[:i], frames[i], *frames[i:], trailer]))
    assert refused(codec, b"".join(frames))
    assert refused(codec, b"".join([*frames, trailer, trailer]))
    assert refused(codec, trailer)


def test_frames_of_another_archive_of_the_same_model(codec):
    frames, _, trailer = parts_of(compress(codec, ORIGINAL))
    others, _, other_trailer = parts_of(compress(codec, OTHER))
    assert len(others) == len(frames)
    for i in range(len(frames)):
        foreign = b"".join([*frames[:i], others[i], *frames[i + 1 :], trailer])
        assert refused(codec, foreign)
    assert refused(codec, b"".join([*frames, other_trailer]))
    assert refused(codec, b"".join([*frames[:3], *others[3:], other_trailer]))


@pytest.mark.parametrize(
    "garbage", [b"\0", b"\n", b"\xf8", b"\xf8LZ\0", SYNC, TRAILER, b"\xf8LZ\1", noise(100)], ids=bytes.hex
)
def test_what_follows_the_end_is_refused(codec, garbage):
    assert refused(codec, compress(codec, ORIGINAL) + garbage)
    assert refused(codec, compress(codec, b"") + garbage, b"")


def test_random_damage(codec):
    archive = compress(codec, ORIGINAL)
    count = helpers.rounds(600 if codec is helpers else 60)
    assert sum(refused(codec, damaged) for damaged in helpers.damages(archive, count)) > 0.9 * count


def test_random_damage_on_the_command_line(codec, tmp_path, monkeypatch, capfd):
    """One line, exit code 1 and no output; or the original."""
    if codec is helpers:
        monkeypatch.setitem(sys.modules, "llmzip.api.stream", helpers.codec())
    monkeypatch.chdir(tmp_path)
    archive = compress(codec, ORIGINAL)
    for damaged in helpers.damages(archive, helpers.rounds(60 if codec is helpers else 12), seed=1):
        (tmp_path / "a.lz").write_bytes(damaged)
        with pytest.raises(SystemExit) as info:
            cli.cli(["decompress", "-T1", "a.lz"], prog_name="llmzip")
        err = capfd.readouterr().err
        if info.value.code:
            assert info.value.code == 1
            assert err.startswith("llmzip: a.lz: ")
            assert err.count("\n") == 1
            assert "internal error" not in err
        else:
            assert err == ""
            assert (tmp_path / "a").read_bytes() == ORIGINAL
            (tmp_path / "a").unlink()
        assert not [path for path in tmp_path.iterdir() if path.name not in ("a.lz", "models")]


def test_noise_after_a_valid_start(codec):
    rng = random.Random(0)
    archive = compress(codec, ORIGINAL)
    for _ in range(helpers.rounds(300 if codec is helpers else 30)):
        assert refused(codec, archive[: rng.randrange(60)] + rng.randbytes(rng.randrange(1, 400)))


def test_damage_allocates_nothing(codec):
    archive = compress(codec, ORIGINAL)
    refused(codec, archive)
    tracemalloc.start()
    for damaged in helpers.damages(archive, 100 if codec is helpers else 10, seed=2):
        refused(codec, damaged)
        if codec is helpers:
            salvage(codec, damaged)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20  # a header can claim 64 MiB
