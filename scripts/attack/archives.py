"""Mutated archives: hostile fields behind checks that are right."""

from __future__ import annotations

import io
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from findings import Findings, judged

import llmzip
from llmzip.coding.token_coder import TokenCoder
from llmzip.container import format as container
from llmzip.container.reader import scan
from llmzip.model import registry

TEXT = (b"It was the best of times, it was the worst of times. \xe7\x8b\x90\xe7\x8b\xb8 0123456789\n" * 15)[:1000]
FRAME_BYTES = 300  # the attack makes frames of this size
HOSTILE = (0, 1, 2, 3, 63, 64, 127, 128, 255, 1 << 14, 1 << 16, 1 << 20, 1 << 26, (1 << 26) + 1, 1 << 31, (1 << 63) - 1)


def archives() -> list[tuple[str, bytes]]:
    """Return archives of every kind of frame: stored, without a model, with one, in one lane and in several."""
    noise = random.Random(0).randbytes(900)
    made = []
    for name, content, model in (("stored", noise, "none"), ("bytes", TEXT, "none"), ("model", TEXT, "default")):
        made += [
            (f"{name}, {kind}", llmzip.compress(part, model=model))
            for kind, part in (("one frame", content[:FRAME_BYTES]), ("several frames", content))
        ]
    lanes = TokenCoder(registry.load()).encode(TEXT, lane_count=4, capacity=len(TEXT))
    if lanes is None:
        raise SystemExit("the text cannot be made smaller")
    out = io.BytesIO()
    writer = container.Writer(out, registry.load().digest, registry.number_of(registry.load().digest))
    writer.write(TEXT, last=True, payload=lanes.payload, lane_bytes=lanes.lane_bytes)
    return [*made, ("model, four lanes", out.getvalue())]


def sealed(head: bytes, checksum: int, payload: bytes) -> bytes:
    """Return a frame with the right check of its head."""
    head += checksum.to_bytes(4, "little")
    return head + (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little") + payload


def hostile_number(rng: random.Random, value: int) -> int:
    """Return a number in the place of `value`."""
    near = value + rng.choice((-2, -1, 1, 2, 64, -64))
    return max(
        0, rng.choice((near, value * 2, value // 2, rng.choice(HOSTILE), rng.randrange(1 << rng.randrange(1, 63))))
    )


def mutated_frame(rng: random.Random, frame: container.Frame) -> bytes:
    """Return a frame with some of its fields changed, and the check of its head right."""
    header, payload, checksum = frame.header, bytearray(frame.payload), frame.checksum
    number, size, payload_size, lanes = header.number, header.size, header.payload_size, list(header.lane_bytes[:-1])
    flags = frame.head[len(frame.head) - len(header.pack())]
    archive = (frame.archive or container.ArchiveHeader()).pack()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kind = rng.randrange(8)
        if kind == 0:
            size = hostile_number(rng, size)
        elif kind == 1:
            payload_size = hostile_number(rng, payload_size)
        elif kind == 2:
            flags ^= 1 << rng.randrange(8)
        elif kind == 3:
            number = hostile_number(rng, number)
        elif kind == 4 and lanes:
            lanes[rng.randrange(len(lanes))] = hostile_number(rng, lanes[0])
        elif kind == 5 and payload:
            payload[rng.randrange(len(payload))] = rng.randrange(256)
        elif kind == 6:
            payload = bytearray(
                rng.choice((rng.randbytes(len(payload)), bytes(len(payload)), payload[:9], payload * 2))
            )
            payload_size = rng.choice((payload_size, len(payload)))
        else:
            archive = archive[:4] + bytes([rng.choice((0, 1, 4, 5, 254, 255))]) + rng.randbytes(8 * rng.randrange(2))
    head = archive if header.number == 1 else container.SYNC + container.pack_varint(number)
    head += bytes([flags]) + container.pack_varint(size)
    if flags >> 1 & 3 != container.STORED:
        head += b"".join(map(container.pack_varint, (payload_size, *lanes)))
    return sealed(head, checksum, bytes(payload))


def forged_list(rng: random.Random, frames: list[container.Frame]) -> bytes:
    """Return a list of frames that lies, with the right check."""
    numbers = [n for frame in frames for n in (frame.header.size, frame.stored_size)]
    for _ in range(rng.choice((1, 2))):
        i = rng.randrange(len(numbers))
        numbers[i] = hostile_number(rng, numbers[i])
    count = hostile_number(rng, len(frames)) if rng.random() < 0.2 else len(frames)
    total = sum(numbers[::2]) if rng.random() < 0.8 else rng.choice(HOSTILE)
    out = container.TRAILER + b"".join(map(container.pack_varint, (count, *numbers, min(total, (1 << 63) - 1))))
    chain = b"".join(frame.checksum.to_bytes(4, "little") for frame in frames)
    out += zlib.crc32(chain).to_bytes(4, "little")
    out += zlib.crc32(out).to_bytes(4, "little")
    return out + len(out).to_bytes(4, "little") + container.FOOTER


def mutations(rng: random.Random, archive: bytes) -> Iterator[bytes]:
    """Yield archives with hostile fields and right checks, without end."""
    frames = list(scan(io.BytesIO(archive)))
    ends = np.cumsum([frame.stored_size for frame in frames]).tolist()
    cut = [archive[end - frame.stored_size : end] for end, frame in zip(ends, frames, strict=True)]
    full = [replace(frame, payload=part[frame.head_size :]) for frame, part in zip(frames, cut, strict=True)]
    while True:
        parts, rest = list(cut), archive[ends[-1] :]
        kind = rng.randrange(6)
        if kind <= 2:
            i = rng.randrange(len(parts))
            parts[i] = mutated_frame(rng, full[i])
        elif kind == 3 and len(parts) > 1:
            rest = forged_list(rng, frames)
        elif kind == 4:
            rng.shuffle(parts)
        elif len(parts) > 1:  # one frame twice is two archives
            i = rng.randrange(len(parts))
            parts[i : i + 1] = [parts[i]] * rng.randrange(3)
        yield b"".join(parts) + rest + bytes(rng.choice((0, 0, 0, 1, 512)))


def seek_and_read(archive: bytes, at: int) -> bytes:
    """Return some bytes at a random place."""
    file = llmzip.open(io.BytesIO(archive))
    file.seek(at)
    return file.read(50)


def salvage(archive: bytes) -> None:
    """Write what is left to nowhere; whose bytes they are is for the checksums of frames to say."""
    llmzip.decompress_stream(io.BytesIO(archive), io.BytesIO(), keep_going=True)


def attack_archives(count: int, seed: int) -> bool:
    """Read mutated archives in every way there is."""
    rng, findings = (
        random.Random(seed),
        {way: Findings() for way in ("decompress", "seek", "salvage", "list", "pieces")},
    )
    originals = [(name, archive, llmzip.decompress(archive)) for name, archive in archives()]
    sources = [(name, mutations(rng, archive), content) for name, archive, content in originals]
    for i in range(count):
        name, source, content = sources[i % len(sources)]
        archive, at = next(source), rng.randrange(len(content))
        ways: dict[str, tuple[Callable[[], bytes | None], bytes | None]] = {
            "decompress": (lambda a=archive: llmzip.decompress(a, max_size=1 << 24), content),
            "seek": (lambda a=archive, at=at: seek_and_read(a, at), content[at : at + 50]),
            "salvage": (lambda a=archive: salvage(a), None),
            "list": (lambda a=archive: llmzip.archive_info(io.BytesIO(a)) and None, None),
            "pieces": (lambda a=archive: llmzip.Decompressor().decompress(a) and None, None),
        }
        for way in ("decompress", "list", *(("seek", "salvage", "pieces") if i % 4 == 0 else ())):
            judged(findings[way], ways[way][0], ways[way][1], f"{name}: {archive[:40].hex()}")
    sound = [found.print(f"mutated archives, {way}") for way, found in findings.items()]
    return all(sound)
