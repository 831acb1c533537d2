"""Texts of many kinds, made here: the project's tests need no files from elsewhere."""

import random

ENGLISH = (
    "It was the kind of morning on which nothing could be expected to happen, and so, naturally, the "
    "engine stopped in the middle of the bridge. The driver climbed down, looked at the wheels, looked at the "
    "river, and said that he had seen worse in the winter of 1887. Nobody on the train believed him. "
)

WORDS = b"the thing and another one are on the table, and nobody knows what to do with it. 1900 was long ago\n"


def words(count: int, seed: int = 0) -> bytes:
    """Return English words in random order: text that a model can predict a little."""
    rng = random.Random(seed)
    vocabulary = sorted(set(ENGLISH.split()))
    lines = (" ".join(rng.choices(vocabulary, k=9)) + ".\n" for _ in range(count // 9 + 1))
    return "".join(lines).encode()


def noise(count: int, seed: int = 0) -> bytes:
    """Return bytes that nothing can predict."""
    return random.Random(seed).randbytes(count)


HARD = {
    "one byte": b"x",
    "one NUL": b"\0",
    "two bytes": b"\xff\xfe",
    "English": (ENGLISH * 3).encode(),
    "CRLF": b"one line\r\nanother\r\n\r\n" * 40,
    "invalid UTF-8": b"caf\xc3 \xe2\x82 \xf0\x9f\x98 \xff\xfe\x80 end" * 20,
    "NULs": b"\0" * 3000,
    "long run": b"a" * 5000 + b"b" * 5000,
    "two equal halves": words(900) * 2,
    "Chinese": "长文本压缩需要一个好的模型。没有空格也要能工作。".encode() * 30,
    "all bytes": bytes(range(256)) * 12,
    "mixed": words(300) + noise(400) + "ü€漢😀".encode() * 50,
}
