import io
from concurrent.futures import ThreadPoolExecutor

import pytest
from archives import Pipe
from networks import tiny_model_file
from texts import HARD, noise, words

from llmzip.api import frames, stream
from llmzip.container.format import Writer
from llmzip.container.reader import scan
from llmzip.errors import ChecksumError, HardwareError, LlmzipError, ModelError, SalvageError, TruncatedError

FRAME_BYTES = stream.FRAME_BYTES


@pytest.fixture(autouse=True)
def small_frames(monkeypatch):
    monkeypatch.setattr(stream, "FRAME_BYTES", 4096)


def pack(data, model, **options):
    out = io.BytesIO()
    stream.compress_stream(io.BytesIO(data), out, model=str(model), **options)
    return out.getvalue()


def unpack(archive, **options):
    out = io.BytesIO()
    stream.decompress_stream(io.BytesIO(archive), out, **options)
    return out.getvalue()


@pytest.mark.parametrize("kind", HARD)
def test_round_trip(tiny_file, kind):
    archive = pack(HARD[kind], tiny_file)
    assert unpack(archive) == HARD[kind]


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 8192, 12289])
def test_frames_end_where_the_data_does(tiny_file, size):
    data = words(3000)[:size]
    archive = pack(data, tiny_file)
    assert unpack(archive) == data
    assert len(list(scan(io.BytesIO(archive)))) == max(1, -(-size // 4096))


@pytest.mark.parametrize("model", ["tiny", "none"])
@pytest.mark.parametrize("size", [0, 4096, 12289])
def test_frames_made_alone_are_those_of_the_archive(tiny_file, model, size):
    data, name = words(3000)[:size], str(tiny_file) if model == "tiny" else model
    frames = [data[at : at + 4096] for at in range(0, size, 4096)] or [b""]
    out = io.BytesIO()
    writer = Writer(out)  # which knows of no model
    for number, content in enumerate(frames, 1):
        writer.append(stream.code_frame(content, number=number, last=number == len(frames), model=name))
    assert out.getvalue() == pack(data, name)
    with pytest.raises(ValueError, match="comes after"):
        writer.append(stream.code_frame(b"", number=1, last=True, model=name))


def test_pipes_give_the_same_archive(tiny_file):
    data = words(2000)
    out = io.BytesIO()
    stream.compress_stream(Pipe(data), out, model=str(tiny_file))
    assert out.getvalue() == pack(data, tiny_file)
    back = io.BytesIO()
    stream.decompress_stream(Pipe(out.getvalue()), back)
    assert back.getvalue() == data


def test_threads_change_no_byte(tiny_file):
    data = words(1200)
    archives = {pack(data, tiny_file, threads=n) for n in (1, 2, 3)}
    assert len(archives) == 1
    assert all(unpack(archives.copy().pop(), threads=n) == data for n in (1, 2, 3))


@pytest.mark.parametrize("size", [0, 1, 100, 4096, 20_000, 300_000, FRAME_BYTES + 1])
def test_noise_grows_by_16_bytes_and_half_a_thousandth_at_most(tiny_file, monkeypatch, size):
    monkeypatch.setattr(stream, "FRAME_BYTES", FRAME_BYTES)
    # The identity of a user's model takes no room: a frame that needs no model names none if it is the only one, and
    # of several the first is so long that half a thousandth is more.
    assert len(pack(noise(size), tiny_file)) <= size + size // 2000 + 16


def test_frames_of_noise_have_the_overhead_that_the_format_says(tiny_file):
    for count in (2, 5):
        data = noise(4096 * count)
        assert len(pack(data, tiny_file)) <= len(data) + 24 + 18 * (count - 1) + 8 * count + 30


def test_overhead_of_a_small_archive_is_16_bytes_at_most(tiny_file):
    data = words(150)[:1000]
    archive = pack(data, tiny_file)
    (frame,) = scan(io.BytesIO(archive))
    identity = 8  # of a model that is not shipped
    assert len(archive) - frame.header.payload_size <= 16 + identity


def test_archives_one_after_another_are_joined(tiny_file):
    parts = [words(700), b"", noise(500), words(900, 1)]
    assert unpack(b"".join(pack(part, tiny_file) for part in parts)) == b"".join(parts)


def test_one_model_does_not_open_the_archive_of_another(tiny_file):
    archive = pack(words(300), tiny_file)
    other = tiny_file.with_name("other.safetensors")
    other.write_bytes(tiny_model_file(seed=1))
    assert unpack(archive) == words(300)
    with pytest.raises(ModelError, match=r"made with model [0-9a-f]{16}"):
        unpack(archive, model=str(other))
    tiny_file.unlink()
    with pytest.raises(ModelError, match="LLMZIP_MODEL_PATH"):
        unpack(archive)


def test_undamaged_frames_are_recovered(tiny_file):
    data = words(2500)
    archive = bytearray(pack(data, tiny_file))
    frames = list(scan(io.BytesIO(bytes(archive))))
    second = frames[0].stored_size + frames[1].head_size + 20
    archive[second] ^= 4
    with pytest.raises(LlmzipError):
        unpack(bytes(archive))
    out = io.BytesIO()
    with pytest.raises(SalvageError):
        stream.decompress_stream(io.BytesIO(bytes(archive)), out, keep_going=True)
    assert out.getvalue() == data[:4096] + data[8192:]


def test_damage_in_a_payload_is_an_error(tiny_file):
    archive = pack(words(150)[:900], tiny_file)
    (frame,) = scan(io.BytesIO(archive))
    for at in range(frame.head_size, len(archive), 7):
        damaged = bytearray(archive)
        damaged[at] ^= 0x10
        with pytest.raises(LlmzipError):
            unpack(bytes(damaged))


def test_truncation_is_an_error_at_every_byte(tiny_file):
    archive = pack(words(150)[:700], tiny_file)
    for size in range(len(archive)):
        with pytest.raises((TruncatedError, ChecksumError)):
            unpack(archive[:size])


def test_a_pipe_without_data_for_now_has_not_ended(tiny_file):
    class Busy(Pipe):
        def read(self, size=-1):
            return super().read(size) or None

    with pytest.raises(BlockingIOError):
        stream.compress_stream(Busy(words(300)), io.BytesIO(), model=str(tiny_file))


def test_progress_tells_every_byte_of_every_kind_of_frame(tiny_file):
    data = words(1500)[:8192] + noise(4096 + 3000)  # coded, and stored for lack of success
    told = []
    archive = pack(data, tiny_file, progress=told.append)
    assert sum(told) == len(data)
    assert {bool(frame.header.kind) for frame in scan(io.BytesIO(archive))} == {True, False}
    told.clear()
    unpack(archive, progress=told.append)
    assert sum(told) == len(data)


def test_progress_does_not_count_a_frame_that_is_damaged(tiny_file):
    archive = bytearray(pack(noise(2 * 4096), tiny_file))
    archive[-200] ^= 1  # inside the second frame, which is stored
    told = []
    with pytest.raises(ChecksumError):
        unpack(bytes(archive), progress=told.append)
    assert sum(told) == 4096


def test_threads_of_a_program_may_compress_at_once(tiny_file):
    other = tiny_file.with_name("other.safetensors")
    other.write_bytes(tiny_model_file(seed=1))
    texts = [words(200, seed) for seed in range(12)]

    def there_and_back(i):
        return unpack(pack(texts[i], (tiny_file, other)[i % 2], threads=1 + i % 3))

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(there_and_back, range(12))) == texts


def test_salvage_does_not_blame_the_archive_for_the_machine(tiny_file, monkeypatch):
    archive = pack(words(300), tiny_file)

    def decode(*_, **__):
        raise HardwareError("flushes denormals")

    monkeypatch.setattr(frames.TokenCoder, "decode", decode)
    with pytest.raises(HardwareError):
        unpack(archive, keep_going=True)
