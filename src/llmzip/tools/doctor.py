"""Check on this machine what llmzip promises on all: the same bytes, whatever computes them.

A sample is coded by every backend, with one thread and with all, and decoded by every other. A difference would mean
archives that open only here, or not here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from llmzip import jit
from llmzip.coding.token_coder import Coded, TokenCoder
from llmzip.errors import LlmzipError, ModelError
from llmzip.model.file import Model
from llmzip.network import matmul
from llmzip.network.llama.weights import LlamaWeights
from llmzip.threads import usable_cores
from llmzip.tools import machine, selftest

SAMPLE_BYTES = 24_000
SHORT = 3_000
NOT_KEPT = "not kept, so that every process compiles them"


@dataclass(frozen=True)
class Finding:
    """What was examined, the result, and whether it is sound."""

    subject: str
    text: str
    sound: bool = True


def sample(size: int = SAMPLE_BYTES) -> bytes:
    """Return prose, code and other scripts: the sources of this package, and a line that they lack."""
    sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parents[1].rglob("*.py")))
    return ("Füchse 狐狸 лисы ثعالب 🦊\n".encode() + sources)[:size]


def replay(model: Model) -> None:
    """Compress and decompress a short sample, and replay the self-test if the model has one.

    Raises ModelError or HardwareError for what does not come out as it must.
    """
    token_coder, text = TokenCoder(model), sample(SHORT)
    coded = token_coder.encode(text, capacity=2 * SHORT)
    if coded is None or token_coder.decode(coded.payload, coded.lane_bytes) != text:
        raise ModelError("does not decompress what it has compressed")
    if "selftest" in model.info:
        selftest.verify(model)


def examine(model: Model) -> Iterator[Finding]:
    """Examine everything that could make this machine differ from others."""
    yield Finding("machine", machine.processor())
    yield Finding("versions", machine.versions())
    yield Finding("kernels", _kernels())
    yield Finding("model", f"{model.digest[:8].hex()}, {model.tokenizer.size} tokens")
    if "selftest" in model.info:
        yield _self_test(model)
    cores = sorted({1, usable_cores()})
    weights = model.weights
    if isinstance(weights, LlamaWeights):  # of kernels that are exact by themselves, there is nothing to choose
        yield from _compare(model, [Setting(None, threads) for threads in cores])
        return
    matrices = [weights.head_cluster, *(matrix for layer in weights.layers for matrix in layer.matrices())]
    shapes = sorted({matrix.q.shape for matrix in matrices})
    usable = []
    for name, bind in matmul.BINDERS.items():
        exact = all(matmul.self_test(bind, shape, rows) for shape in shapes for rows in (1, 64))
        if exact:
            usable.append(name)
        text = "exact" if exact else "not exact here, and therefore never used"
        yield Finding(f"backend {name}", text)
    yield Finding("backends", f"{len(usable)} of {len(matmul.BINDERS)} usable", sound=bool(usable))
    yield from _compare(model, [Setting(c, t) for c, t in product(usable, cores)])


def _kernels() -> str:
    """Return where compiled kernels are kept, or why nowhere."""
    folder = jit.cache_folder(jit.PACKAGE / "coding/token_kernels.py")
    if folder is None:
        return f"{NOT_KEPT}: there is no home folder (set NUMBA_CACHE_DIR)"
    try:
        os.close(folder.open(create=True))
    except OSError as error:
        return f"{NOT_KEPT}: {error.filename or folder.path}: {error.strerror} (set NUMBA_CACHE_DIR)"
    return str(folder.path.parent)


def _self_test(model: Model) -> Finding:
    """Compare with the machine that made the model."""
    try:
        selftest.verify(model)
    except LlmzipError as error:
        return Finding("self-test", str(error), sound=False)
    return Finding("self-test", "the same bytes as on the machine that made the model")


@dataclass(frozen=True)
class Setting:
    """One way to run the network."""

    backend: str | None
    threads: int

    def __str__(self) -> str:
        return f"{self.backend or 'cpu'}, {self.threads} thread{'s' * (self.threads > 1)}"


def _compare(model: Model, settings: list[Setting]) -> Iterator[Finding]:
    """Code the sample with every setting, and decode with each what the one before has coded."""
    text = sample()
    expected: Coded | None = None
    for setting in settings:
        try:
            token_coder = TokenCoder(model, threads=setting.threads, backend=setting.backend)
            token_coder.encode(text[:SHORT])  # compiles what has to be compiled
            start = time.perf_counter()
            coded = token_coder.encode(text)
            middle = time.perf_counter()
            if coded is None:
                yield Finding(str(setting), "the sample cannot be made smaller", sound=False)
                continue
            expected = expected or coded
            restored = token_coder.decode(expected.payload, expected.lane_bytes) == text
            end = time.perf_counter()
        except LlmzipError as error:
            yield Finding(str(setting), str(error), sound=False)
            continue
        speed = f"{len(text) / 1000 / (middle - start):.1f} and {len(text) / 1000 / (end - middle):.1f} KB/s"
        if coded != expected or not restored:
            yield Finding(str(setting), f"differs from {settings[0]}", sound=False)
        else:
            bits = 8 * len(coded.payload) / len(text)
            yield Finding(str(setting), f"same bytes, {bits:.3f} bits/byte, {speed}")
