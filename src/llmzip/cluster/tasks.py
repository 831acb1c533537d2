"""What workers do: a batch of files, or a frame of a large one; and how large a batch is."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

import llmzip
from llmzip.api.remote import read_range
from llmzip.batch.pace import PER_MINUTE, pace_of
from llmzip.batch.plan import Item
from llmzip.batch.report import Outcome
from llmzip.batch.task import Work, convert
from llmzip.container.format import Frame
from llmzip.errors import LlmzipError

PER_FILE = 8_000  # bytes that could be compressed in the time that opening and naming files takes, about


def batches(files: Iterable[Item], limit: int) -> Iterator[list[Item]]:
    """Cut files into runs of about `limit` bytes, each file counted with what it takes to open one."""
    batch: list[Item] = []
    size = 0
    for item in files:
        cost = (item.size or 0) + PER_FILE
        if batch and size + cost > limit:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += cost
    if batch:
        yield batch


def per_minute(work: Work) -> int:
    """Return the bytes of sources that a thread works off in a minute, about."""
    share = 1 if work.kind == "compress" else 4  # archives are about a quarter of their content
    return PER_MINUTE[pace_of(work.model)] // share


@functools.cache
def _warm(model: str | None) -> None:
    """Load the model and the kernels once in each process, before the first file."""
    llmzip.compress(b"The kernels are compiled or loaded once.\n", model=model, threads=1)


def convert_batch(batch: Sequence[Item], work: Work) -> list[Outcome]:
    """Work off a batch; runs on a worker."""
    with suppress(LlmzipError):  # each file will say why
        _warm(work.model)
    return [convert(item, work) for item in batch]


def code_frame(source: str, number: int, size: int, frame_bytes: int, work: Work) -> Frame:
    """Read and code frame `number` of a file of `size` bytes; runs on a worker."""
    from llmzip.api import stream

    start = (number - 1) * frame_bytes
    content = read_range(source, start, min(frame_bytes, size - start))
    return stream.code_frame(
        content, number=number, last=start + frame_bytes >= size, model=work.model, threads=work.threads
    )
