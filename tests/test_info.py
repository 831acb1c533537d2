"""What is told of an archive without decoding it."""

from __future__ import annotations

import io

import pytest
from archives import Pipe
from frames import FRAME, TEXT
from texts import noise

import llmzip

pytestmark = pytest.mark.usefixtures("small_frames")


@pytest.mark.usefixtures("tiny_name")
def test_frame_info(archive):
    info = llmzip.get_frame_info(archive[:1000])
    assert (info.decompressed_size, info.last, info.format_version) == (FRAME, False, 0)
    assert info.model == archive[5:13].hex()
    assert llmzip.get_frame_info(llmzip.compress(b"x")).lanes == 0
    with pytest.raises(llmzip.FormatError, match="gzip"):
        llmzip.get_frame_info(b"\x1f\x8b" + bytes(20))
    with pytest.raises(llmzip.TruncatedError):
        llmzip.get_frame_info(archive[:10])


def test_archive_info(tiny_name, archive):
    both = archive + llmzip.compress(noise(100), model=tiny_name)
    for stream in (io.BytesIO(both), Pipe(both)):
        info = llmzip.archive_info(stream)
        assert (info.decompressed_size, info.compressed_size) == (len(TEXT) + 100, len(both))
        assert info.frames == 7
        assert info.models == (archive[5:13].hex(),)
        assert 1e8 < info.memory < 1e9
    assert llmzip.archive_info(io.BytesIO(llmzip.compress(noise(100)))).models == ("none",)
