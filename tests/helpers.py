"""A codec of a few lines to test container and command line without a network, and the damage to do."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import itertools
import os
import random
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import llmzip
from llmzip.container.format import ArchiveHeader, Frame, Writer
from llmzip.container.reader import Reader
from llmzip.container.salvage import Salvager
from llmzip.errors import ChecksumError, FormatError, ModelError

FRAME_BYTES = 1000
DIGEST = hashlib.sha256(b"the model of the tests").digest()
OTHER_DIGEST = hashlib.sha256(b"another model").digest()
# A process that runs the command line with the codec below.
ENVIRONMENT = {
    **{k: v for k, v in os.environ.items() if not k.startswith("LLMZIP_")},
    "PYTHONPATH": os.pathsep.join([str(Path(llmzip.__file__).parents[1]), str(Path(__file__).parent)]),
    "XDG_DATA_HOME": "/nowhere",  # the models of who runs the tests stay out of them
    "NUMBA_DISABLE_JIT": "1",  # nothing to compile, so nothing to say about it
}
COMMAND = [sys.executable, "-c", "import helpers; helpers.main()"]
DIGESTS = {None: DIGEST, "test": DIGEST, "other": OTHER_DIGEST}


def code_frame(content: bytes, *, number: int, last: bool, model: str | None = None, **_: Any) -> Frame:
    """Return a frame of such an archive."""
    coded = {"payload": None, "lane_bytes": (), "initial_state_digest": None, **_coded(content)}
    return Writer(io.BytesIO(), DIGESTS[model]).frame(content, number=number, last=last, **coded)


def _coded(content: bytes) -> dict[str, Any]:
    """Return how to write a frame; to code b"sleep..." takes a while, and to code b"kill..." ends the process."""
    if content.startswith(b"sleep"):
        time.sleep(0.03)
    elif content.startswith(b"kill"):
        os._exit(1)
    payload = zlib.compress(content, 9)
    if len(payload) >= len(content):
        return {}
    lanes = 4 if len(content) > 400 else 1
    lane_bytes = [len(content) // lanes] * (lanes - 1)
    lane_bytes.append(len(content) - sum(lane_bytes))
    return {"payload": payload, "lane_bytes": lane_bytes}


def compress_stream(src: BinaryIO, dst: BinaryIO, *, model: str | None = None, progress: Any = None, **_: Any) -> None:
    """Deflate takes the place of the model; four lanes where there is enough for them."""
    if model not in DIGESTS:
        raise ModelError(f"there is no model called {model}")
    writer = Writer(dst, DIGESTS[model])
    content = src.read(FRAME_BYTES)
    while True:
        following = src.read(FRAME_BYTES)
        writer.write(content, last=not following, **_coded(content))
        if progress:
            progress(len(content))
        if not following:
            return
        content = following


def compress(data: bytes, **options: Any) -> bytes:
    out = io.BytesIO()
    compress_stream(io.BytesIO(data), out, **options)
    return out.getvalue()


def decompress_stream(
    src: BinaryIO,
    dst: BinaryIO,
    *,
    model: str | None = None,
    progress: Any = None,
    keep_going: bool = False,
    **_: Any,
) -> None:
    reader = Salvager(src) if keep_going else Reader(src)
    for frame in reader:
        try:
            content = _decode(frame, DIGESTS[model])
            frame.verify(content, DIGESTS[model])
        except (FormatError, ChecksumError) as error:
            reader.lose(frame, error)
            continue
        dst.write(content)
        if progress:
            progress(len(content))


def _decode(frame: Frame, digest: bytes) -> bytes:
    if not frame.header.lane_bytes:
        return frame.payload
    if frame.archive not in (None, ArchiveHeader(model_id=digest[:8])):
        raise ModelError("made with another model (give it with -m)")
    inflate = zlib.decompressobj()
    try:
        return inflate.decompress(frame.payload, frame.header.size + 1)
    except zlib.error as error:
        raise FormatError("the frame's data is damaged") from error


def codec() -> ModuleType:
    """Return a module to stand in for llmzip.api.stream."""
    module = ModuleType("llmzip.api.stream")
    module.__dict__.update(
        compress=compress, compress_stream=compress_stream, decompress_stream=decompress_stream, code_frame=code_frame
    )
    return module


def install() -> None:
    """Let the package in this process use this codec."""
    sys.modules["llmzip.api.stream"] = codec()


def main() -> None:
    """Run the command line with this codec; for subprocesses."""
    install()
    from llmzip.cli import main

    main()


def start(*args: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start a process with the codec of the tests."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*COMMAND, *args], **{"env": ENVIRONMENT, **pipes, **options})


def written_so_far(process: Any, folder: Path) -> int:
    """Return the size of the output that a process has open, which may have no name yet."""
    sizes = [0]
    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(descriptor).startswith(str(folder)):
                sizes.append(descriptor.stat().st_size)
    return max(sizes)


def script(name: str) -> ModuleType:
    """Return one of the scripts as a module."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def rounds(default: int) -> int:
    """Return how many random damages to do: LLMZIP_DAMAGES overrides it."""
    return int(os.environ.get("LLMZIP_DAMAGES", default))


def damages(archive: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield `count` copies with bits or bytes changed, or a piece cut out, doubled, moved or overwritten."""
    rng = random.Random(seed)
    for kind in itertools.islice(itertools.cycle(range(6)), count):
        data = bytearray(archive)
        # Never all of it: two archives in a row are no damage.
        a, b = sorted(rng.sample(range(len(data)), 2))
        if kind == 0:
            for _ in range(rng.randint(1, 8)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == 1:
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        elif kind == 2:
            del data[a:b]
        elif kind == 3:
            data[b:b] = data[a:b]
        elif kind == 4:
            piece = data[a:b]
            del data[a:b]
            at = rng.randint(0, len(data))
            data[at:at] = piece
        else:
            data[a : min(b, a + 64)] = rng.randbytes(min(b - a, 64))
        yield bytes(data)


def coded(token_coder, data, lanes):
    """Code `data` with room to spare, so that short texts are coded too."""
    result = token_coder.encode(data, lane_count=lanes, capacity=2 * len(data) + 64)
    assert result is not None
    return result
