import importlib
import os
import signal

import hypothesis
import pytest

# Jobs that a script runs in the background ignore these, and so would the programs that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

# Kernels compile in the first example.
hypothesis.settings.register_profile("llmzip", deadline=None, derandomize=True)
hypothesis.settings.load_profile("llmzip")


@pytest.fixture(autouse=True)
def no_models_of_the_user(tmp_path, monkeypatch):
    """Keep the models of who runs the tests out of them."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def one_thread():
    """Keep torch from waiting for a second thread at every small product."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny():
    """The tiny model."""
    from networks import tiny_model_file

    from llmzip.model.file import parse

    return parse(tiny_model_file())


@pytest.fixture
def tiny_file(tmp_path, monkeypatch):
    """The tiny model as a file, on the search path."""
    from networks import tiny_model_file

    path = tmp_path / "models" / "tiny.safetensors"
    path.parent.mkdir()
    path.write_bytes(tiny_model_file())
    monkeypatch.setenv("LLMZIP_MODEL_PATH", str(path.parent))
    return path


@pytest.fixture
def tiny_name(tiny_file):
    """The tiny model as users name it."""
    return str(tiny_file)


@pytest.fixture
def small_frames(monkeypatch):
    """Make frames small, and use one thread: these tests are not about several."""
    from frames import FRAME

    monkeypatch.setattr(importlib.import_module("llmzip.api.stream"), "FRAME_BYTES", FRAME)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})


@pytest.fixture
def archive(small_frames, tiny_name):  # noqa: ARG001 - it makes the frames small
    """An archive of several frames."""
    from frames import TEXT

    import llmzip

    return llmzip.compress(TEXT, model=tiny_name)


@pytest.fixture
def decoded(monkeypatch):
    """The numbers of the frames that have been decoded."""
    from llmzip.api.frames import FrameDecoder

    numbers = []
    decode = FrameDecoder.decode_admitted

    def count(decoder, frame, threads, progress=None):
        numbers.append(frame.header.number)
        return decode(decoder, frame, threads, progress)

    monkeypatch.setattr(FrameDecoder, "decode_admitted", count)
    return numbers


@pytest.fixture(params=["deflate", "model"])
def codec(request, monkeypatch):
    """The codec of the tests, which is quick, and the real one with a tiny model; frames are small."""
    import helpers
    from damage import FRAME_BYTES

    if request.param == "deflate":
        monkeypatch.setattr(helpers, "FRAME_BYTES", FRAME_BYTES)
        return helpers
    request.getfixturevalue("tiny_file")
    real = importlib.import_module("llmzip.api.stream")
    monkeypatch.setattr(real, "FRAME_BYTES", FRAME_BYTES)
    return real


@pytest.fixture
def fsspec_tables():
    """What is registered with fsspec is forgotten afterwards."""
    import fsspec.compression

    tables = fsspec.compression.compr, fsspec.utils.compressions
    before = [dict(table) for table in tables]
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)


@pytest.fixture
def memory():
    """The file system in memory, which is one for the whole process."""
    import fsspec

    system = fsspec.filesystem("memory", use_listings_cache=False)  # the instance that llmzip uses, to patch it
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.fixture(scope="session")
def s3_server():
    """The address of an S3 server on this machine."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """The file system of an S3 server with an empty bucket, "bucket"; processes that are started find it, too."""
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem(use_listings_cache=False)
    system.mkdir("bucket")
    yield system
    system.rm("bucket", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()
