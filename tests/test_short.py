"""Short texts: the same bytes alone and among others, told apart, checked, and never worse than the text itself."""

import hashlib
import io
import random
import subprocess
import sys

import pytest

import llmzip
from llmzip.coding.text_coder import TextCoder
from llmzip.coding.token_coder import TokenCoder
from llmzip.container import small
from llmzip.model import registry

ENGLISH = (
    b"The committee has not yet decided whether the bridge will be repaired or replaced, and nobody expects an answer "
    b"before the end of the summer. Until then the ferry runs twice an hour, except on Sundays."
)


def texts(count, seed=1):
    rng = random.Random(seed)
    cut = [ENGLISH[rng.randrange(100) :][: rng.randint(1, 150)] for _ in range(count)]
    return [*cut, b"", b"x", b"\0\xff\xfe\x80" * 20, "größer".encode(), rng.randbytes(300), ENGLISH * 20]


@pytest.mark.parametrize("model", [None, "none"])
@pytest.mark.parametrize("check", [0, 1, 2, 4])
@pytest.mark.parametrize("bare", [False, True])
def test_round_trip(model, check, bare):
    codec = llmzip.Codec(model, check=check, bare=bare)
    originals = [*texts(5), ENGLISH * 40]
    assert codec.decode_many(codec.encode_many(originals)) == originals


def test_the_bytes_depend_on_the_text_alone():
    originals = texts(150)
    archives = llmzip.compress_many(originals, threads=1)
    assert llmzip.compress_many(originals, threads=3) == archives
    assert llmzip.compress_many(originals[::-1]) == archives[::-1]
    codec = llmzip.Codec()
    alone = random.Random(2).sample(range(len(originals)), 20)
    assert [codec.encode(originals[i]) for i in alone] == [archives[i] for i in alone]


def test_overhead():
    text = ENGLISH[:150]
    sizes = [
        len(llmzip.Codec(check=check, bare=bare).encode(text)) for check, bare in ((2, False), (0, True), (0, False))
    ]
    assert sizes[0] - sizes[1] == 3
    assert sizes[2] - sizes[1] == 1
    assert sizes[0] < 50


def test_incompressible_texts_grow_by_the_header_only():
    noise = random.Random(3).randbytes(100)
    assert len(llmzip.Codec().encode(noise)) == 100 + 4


def test_decompress_reads_them():
    assert llmzip.decompress(llmzip.compress_many([ENGLISH])[0]) == ENGLISH


def test_the_command_reads_them(tmp_path):
    path = tmp_path / "text.lz"
    path.write_bytes(llmzip.Codec().encode(ENGLISH))
    done = subprocess.run([sys.executable, "-m", "llmzip", "decompress", "-c", path], capture_output=True, check=True)
    assert done.stdout == ENGLISH


def content_or_error(archive):
    try:
        return llmzip.decompress(archive)
    except llmzip.LlmzipError as error:
        return error


def test_flipped_bits_are_found_or_harmless():
    archive = llmzip.Codec(check=4).encode(ENGLISH)
    for bit in range(8 * len(archive)):
        damaged = bytearray(archive)
        damaged[bit // 8] ^= 1 << bit % 8
        found = content_or_error(bytes(damaged))
        assert isinstance(found, llmzip.LlmzipError) or found == ENGLISH, bit


def test_truncated_ones_are_refused():
    archive = llmzip.Codec().encode(ENGLISH)
    for size in range(len(archive)):
        with pytest.raises(llmzip.LlmzipError):
            llmzip.decompress(archive[:size])


def test_a_damaged_one_does_not_harm_its_neighbours():
    archives = llmzip.compress_many(texts(10))
    good = llmzip.decompress_many(archives)
    archives[3] = archives[3][:-3] + b"\0\0\0"
    with pytest.raises(llmzip.ChecksumError):
        llmzip.decompress_many(archives)
    del archives[3], good[3]
    assert llmzip.decompress_many(archives) == good


@pytest.mark.parametrize(("model", "name"), [(None, "default"), ("none", "none")])
def test_archive_info_describes_them(model, name):
    archive = llmzip.Codec(model).encode(ENGLISH)
    info = llmzip.archive_info(io.BytesIO(archive))
    assert (info.decompressed_size, info.compressed_size, info.models) == (len(ENGLISH), len(archive), (name,))


@pytest.mark.parametrize("head", [b"\x89PNG\r\n\x1a\n", b"\x80\x04\x95", b"\xa1\xb2\xc3\xd4", b"\xbf" * 3])
def test_foreign_files_are_refused(head):
    with pytest.raises(llmzip.FormatError):
        llmzip.decompress(head + bytes(5000))


def test_payloads_longer_than_their_text_are_refused():
    with pytest.raises(llmzip.FormatError, match="not an llmzip archive"):
        llmzip.decompress(small.SmallHeader(5, 0, 4).pack() + bytes(60))


def test_payloads_end_where_they_should():
    archive = llmzip.Codec(check=0).encode(ENGLISH)
    with pytest.raises(llmzip.ChecksumError):
        llmzip.decompress(archive + b"\0")


def test_texts_over_the_limit_are_refused():
    archive = llmzip.Codec().encode(ENGLISH)
    assert llmzip.decompress(archive, max_size=len(ENGLISH)) == ENGLISH
    with pytest.raises(llmzip.LimitError):
        llmzip.decompress(archive, max_size=len(ENGLISH) - 1)


@pytest.mark.parametrize(
    ("model", "digest"),
    [
        (None, "bccf18b87de6883710e36314787b59337d37ed9f349cd007bf5905ad08b750b5"),
        ("none", "869b8ae6c123b6762498f64c37b03c3c0cfcb76b70575dd4945f7fcb16d22fb8"),
    ],
)
def test_pinned_bytes(model, digest):
    archives = llmzip.Codec(model, check=4).encode_many(texts(40))
    assert hashlib.sha256(b"".join(archives)).hexdigest() == digest


@pytest.mark.parametrize("backend", ["int16", "float32"])
def test_the_bytes_do_not_depend_on_the_matmul_backend(backend):
    model = registry.load()
    state, _ = registry.initial_state_for_short(model)
    originals = [text for text in texts(20) if text]
    expected = TextCoder(TokenCoder(model), state).encode(originals)
    coder = TextCoder(TokenCoder(model, backend=backend), state)
    assert coder.encode(originals) == expected
    coded = [(text, payload) for text, payload in zip(originals, expected, strict=True) if payload]
    assert coder.decode([payload for _, payload in coded], [len(text) for text, _ in coded]) == [t for t, _ in coded]


def test_headers_round_trip():
    for header in (
        small.SmallHeader(0, 0),
        small.SmallHeader(127, 1, 4),
        small.SmallHeader(4096, 2, 13),
        small.SmallHeader(1, 4, 14),
        small.SmallHeader(1, 4, 200),
        small.SmallHeader(1, 2, None, b"ab"),
    ):
        rest = b"c" * header.check_size + b"p" * min(header.size, 1)
        assert small.parse(header.pack() + rest) == (header, b"c" * header.check_size, b"p" * min(header.size, 1))


def test_text_may_be_str():
    assert llmzip.decompress_many(llmzip.compress_many(["Grüße"])) == ["Grüße".encode()]


def test_checks_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match="not 3"):
        llmzip.Codec(check=3)
