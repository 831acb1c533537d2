"""Salvage: what is left of a damaged archive is restored, and what is lost is named."""

from __future__ import annotations

import contextlib
import io
import zlib

import helpers
import pytest
from archives import sealed, write
from damage import FRAME_BYTES, FRAMES, ORIGINAL, OTHER, compress, decompress, parts_of, refused, salvage
from texts import noise

from llmzip.container import salvage as salvage_module
from llmzip.container.format import FOOTER, MAGIC, SYNC, TRAILER, ArchiveHeader, Frame, FrameHeader
from llmzip.container.peekable import PeekableStream
from llmzip.container.salvage import EXAMINATION, FREE_EXAMINATION, MAX_TRAILER, Salvager
from llmzip.errors import FormatError, LlmzipError, ModelError


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


HOSTILE = {
    "magics": MAGIC,
    "sync words": SYNC,
    "beginnings of trailers": TRAILER,
    "trailers of wrong content": TRAILER + (8).to_bytes(4, "little") + FOOTER,
    "ends of trailers": FOOTER,
    "heads of lost frames": sealed(SYNC + b"\2" + FrameHeader(2, False, 1 << 20, 1 << 20).pack()),
    "heads of damaged frames": sealed(SYNC + b"\2" + FrameHeader(2, False, 1, 1).pack(), b"x"),
    "archives": write(b"a", b"b"),
    "empty archives": write(b""),
    "zeros": b"\0",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_work_grows_as_the_file_does(name, monkeypatch):
    """Counted are the bytes that are copied, and those that the search for the ends of trailers goes over."""
    work = 0

    def counting(method):
        def count(stream, *args):
            nonlocal work
            result = method(stream, *args)
            work += len(result) if isinstance(result, bytes) else 0
            return result

        return count

    for method in ("peek", "inside"):
        monkeypatch.setattr(PeekableStream, method, counting(getattr(PeekableStream, method)))

    def work_for(size):
        nonlocal work
        work = 0
        begun = write(b"hello", b"world")[:19]  # an archive whose end is missing
        salvager = Salvager(io.BytesIO(begun + HOSTILE[name] * (size // len(HOSTILE[name]))))
        with contextlib.suppress(LlmzipError):
            for frame in salvager:
                try:
                    frame.verify(frame.payload)
                except LlmzipError as error:
                    salvager.lose(frame, error)
        assert salvager.examined <= FREE_EXAMINATION + (EXAMINATION + 1) * size + MAX_TRAILER
        return work

    small = work_for(50_000)
    assert work_for(400_000) < 12 * small + 400_000
