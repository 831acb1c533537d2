"""Whatever happens to an archive: its content or an LlmzipError; no other bytes, no other exception."""

import importlib
import io
import itertools
import random
import sys
import tracemalloc
import zlib
from typing import NamedTuple

import helpers
import pytest
from texts import noise, words

from llmzip import cli
from llmzip.container import salvage as salvage_module
from llmzip.container.format import SYNC, TRAILER, ArchiveHeader, Frame, FrameHeader
from llmzip.container.reader import scan
from llmzip.errors import FormatError, LlmzipError, ModelError, TruncatedError

FRAME_BYTES = 300
# Text, noise, text: coded and stored frames, the last one short.
ORIGINAL = words(150)[:600] + noise(300) + words(150, 1)[:850]
FRAMES = [ORIGINAL[i : i + FRAME_BYTES] for i in range(0, len(ORIGINAL), FRAME_BYTES)]
OTHER = words(400, 2)[: len(ORIGINAL)]


@pytest.fixture(params=["deflate", "model"])
def codec(request, monkeypatch):
    """The codec of the tests, which is quick, and the real one with a tiny model."""
    if request.param == "deflate":
        monkeypatch.setattr(helpers, "FRAME_BYTES", FRAME_BYTES)
        return helpers
    request.getfixturevalue("tiny_file")
    real = importlib.import_module("llmzip.api.stream")
    monkeypatch.setattr(real, "FRAME_BYTES", FRAME_BYTES)
    return real


def compress(codec, data):
    out = io.BytesIO()
    codec.compress_stream(io.BytesIO(data), out, model="test" if codec is helpers else "tiny", threads=1)
    return out.getvalue()


def decompress(codec, archive, **options):
    out = io.BytesIO()
    codec.decompress_stream(io.BytesIO(archive), out, threads=1, **options)
    return out.getvalue()


def salvage(codec, archive):
    """Return what is left, and what is said of the rest; the archive may name no model any more."""
    out = io.BytesIO()
    model = None if codec is helpers else "tiny"
    try:
        codec.decompress_stream(io.BytesIO(archive), out, threads=1, model=model, keep_going=True)
    except LlmzipError as error:
        return out.getvalue(), str(error)
    return out.getvalue(), ""


def refused(codec, archive, original=ORIGINAL):
    """Tell whether damage was found; if it was not, the content is the original's."""
    try:
        content = decompress(codec, archive)
    except LlmzipError as error:
        text = str(error)
    else:
        assert content == original
        return False
    assert text
    assert "\n" not in text
    return True


def some(codec, places):
    """Return all places for the quick codec, and a sample for the real one."""
    places = sorted(places)
    return places if codec is helpers else random.Random(0).sample(places, min(len(places), 60))


class Parts(NamedTuple):
    frames: list[bytes]
    heads: list[int]  # bytes before the payload
    trailer: bytes


def parts_of(archive):
    """Cut an archive into its frames and its trailer."""
    frames, heads, at = [], [], 0
    for frame in scan(io.BytesIO(archive)):
        frames.append(archive[at : at + frame.stored_size])
        heads.append(frame.head_size)
        at += frame.stored_size
    return Parts(frames, heads, archive[at:])


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


# Salvage


def test_salvage_of_an_undamaged_archive(codec):
    for data in (b"", b"x", ORIGINAL):
        assert salvage(codec, compress(codec, data)) == (data, "")
    assert salvage(codec, compress(codec, ORIGINAL) + compress(codec, OTHER)) == (ORIGINAL + OTHER, "")


@pytest.mark.parametrize("lost", range(6))
@pytest.mark.parametrize("how", ["head", "payload", "cut", "gone", "zeros"])
def test_all_frames_but_one_are_recovered(codec, lost, how):
    frames, heads, trailer = parts_of(compress(codec, ORIGINAL))
    frame, head = bytearray(frames[lost]), heads[lost]
    if how == "head":
        frame[6] ^= 4
    elif how == "payload":
        frame[head + 5] ^= 4
    elif how == "cut":
        del frame[head + 5 : head + 9]
    elif how == "gone":
        frame.clear()
    else:
        frame[:] = bytes(len(frame))
    damaged = b"".join([*frames[:lost], bytes(frame), *frames[lost + 1 :], trailer])
    assert refused(codec, damaged)
    content, message = salvage(codec, damaged)
    assert content == b"".join([*FRAMES[:lost], *FRAMES[lost + 1 :]])
    begin = lost * FRAME_BYTES
    end = begin + len(FRAMES[lost]) - 1
    assert message == f"damaged: frame {lost + 1} lost (bytes {begin} to {end}); the rest is written"


def test_several_losses_are_all_named(codec):
    frames, _, trailer = parts_of(compress(codec, ORIGINAL))
    content, message = salvage(codec, b"".join([frames[0], frames[3], frames[5], trailer]))
    assert content == FRAMES[0] + FRAMES[3] + FRAMES[5]
    losses = "frames 2 to 3 lost (bytes 300 to 899), frame 5 lost (bytes 1200 to 1499)"
    assert message == f"damaged: {losses}; the rest is written"


def test_without_the_trailer_sizes_are_unknown(codec):
    frames, heads, trailer = parts_of(compress(codec, ORIGINAL))
    third = bytearray(frames[2])
    third[heads[2]] ^= 1
    content, message = salvage(codec, b"".join([frames[0], frames[1], bytes(third), frames[4]]))
    assert content == FRAMES[0] + FRAMES[1] + FRAMES[4]
    assert message == ("damaged: frames 3 to 4 lost (size unknown), everything after frame 5 lost; the rest is written")
    content, message = salvage(codec, b"".join(frames))
    assert content == ORIGINAL
    assert message == "damaged: the list of frames at the end lost; the rest is written"
    content, message = salvage(codec, b"".join([*frames, trailer[:-1]]))
    assert content == ORIGINAL
    assert message == "damaged: the list of frames at the end lost; the rest is written"


def test_the_trailer_tells_what_is_missing_at_the_end(codec):
    frames, _, trailer = parts_of(compress(codec, ORIGINAL))
    content, message = salvage(codec, b"".join([*frames[:4], noise(50), trailer]))
    assert content == b"".join(FRAMES[:4])
    assert message == "damaged: frames 5 to 6 lost (bytes 1200 to 1749); the rest is written"


def test_order_and_origin_of_frames(codec):
    frames, _, trailer = parts_of(compress(codec, ORIGINAL))
    swapped = [frames[0], frames[2], frames[1], *frames[3:], trailer]
    content, message = salvage(codec, b"".join(swapped))
    assert content == b"".join([FRAMES[0], *FRAMES[2:]])
    assert "frame 2 lost (bytes 300 to 599)" in message
    others = parts_of(compress(codec, OTHER)).frames
    _, message = salvage(codec, b"".join([*frames[:3], others[3], *frames[4:], trailer]))
    assert message == "damaged: frames of another archive are among them; the rest is written"


def test_several_archives(codec):
    first, second = compress(codec, ORIGINAL), compress(codec, OTHER)
    frames, _, trailer = parts_of(second)
    damaged = b"".join([first, frames[0], *frames[2:], trailer, b"garbage", compress(codec, b"end")])
    content, message = salvage(codec, damaged)
    assert content == ORIGINAL + OTHER[:300] + OTHER[600:] + b"end"
    assert message == "damaged: of archive 2: frame 2 lost (bytes 300 to 599); the rest is written"
    content, message = salvage(codec, b"garbage" + first + b"garbage" + second)
    assert content == ORIGINAL + OTHER
    assert message == "damaged: bytes that belong to no frame left out; the rest is written"


def test_many_losses_do_not_make_a_long_message(monkeypatch):
    monkeypatch.setattr(helpers, "FRAME_BYTES", 20)
    frames, _, trailer = parts_of(compress(helpers, ORIGINAL))
    _, message = salvage(helpers, b"".join([*frames[::2], trailer]))
    assert message.count("lost (") == 8
    assert "more losses" in message


@pytest.mark.parametrize("data", [b"", b"hello", noise(3000), SYNC * 500, b"\xf8LZ" * 999, TRAILER * 500])
def test_nothing_to_salvage(codec, data):
    with pytest.raises(FormatError, match="nothing can be salvaged"):
        decompress(codec, data, keep_going=True)


def test_salvage_without_the_model_says_so(codec, tmp_path):
    archive = compress(codec, ORIGINAL)
    if codec is helpers:
        options = {"model": "other"}
    else:
        (tmp_path / "models" / "tiny.safetensors").unlink()
        options = {}
    for keep_going in (False, True):
        with pytest.raises(ModelError, match="made with"):
            decompress(codec, archive, keep_going=keep_going, **options)


def test_salvage_after_random_damage_gives_frames_of_the_original(codec):
    archive = compress(codec, ORIGINAL)
    for damaged in helpers.damages(archive, helpers.rounds(600 if codec is helpers else 30), seed=3):
        rest, message = salvage(codec, damaged)
        assert bool(rest) != message.startswith("nothing can be salvaged")
        while rest:
            frame = next(frame for frame in FRAMES if rest.startswith(frame))
            rest = rest.removeprefix(frame)


def test_salvage_of_a_file_full_of_trailers_ends_soon(monkeypatch):
    searches = []
    find = salvage_module.PeekableStream.peek

    def counted(self, size):
        searches.append(size)
        return find(self, size)

    monkeypatch.setattr(salvage_module.PeekableStream, "peek", counted)
    content, said = salvage(helpers, compress(helpers, noise(10)) + TRAILER * 3000)
    assert content == noise(10)
    assert said
    assert sum(size > 1 << 20 for size in searches) <= 40


def test_salvage_of_a_file_full_of_heads_tries_few_of_them(monkeypatch):
    tried = []
    verify = Frame.verify
    monkeypatch.setattr(Frame, "verify", lambda frame, *rest: tried.append(frame) or verify(frame, *rest))
    head = ArchiveHeader(number=1).pack() + FrameHeader(1, True, 1000, 1000).pack() + bytes(4)
    head += (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little")
    content, said = salvage(helpers, head * 3000 + compress(helpers, noise(10)))
    assert said
    assert len(tried) < 64 + len(head) * 3000 // 1000 + 3
    assert content in (b"", noise(10))
