"""The run of many files on a cluster: which tasks are next, what their results are worth, archives put together."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from llmzip.api.remote import is_url, status
from llmzip.batch.plan import Item
from llmzip.batch.report import Outcome
from llmzip.batch.resume import is_current
from llmzip.batch.task import Work, destination, failure, verify
from llmzip.cluster.tasks import PER_FILE, batches, code_frame, convert_batch, per_minute
from llmzip.container.format import MAX_SIZE, Writer
from llmzip.errors import FileError, LlmzipError

if TYPE_CHECKING:
    from distributed import Client, Future

RETRIES = 3
TASKS_PER_THREAD = 3  # that the scheduler has at a time: one runs, the others wait at the worker
BATCHES_PER_THREAD = 4  # at least, where the files are few: so that all are busy to the end
STATUS_REQUESTS = 32  # at the same time
ASK_AGAIN = 5.0  # seconds after which the number of threads is asked for again


def outcomes(client: Client, files: Sequence[Item], work: Work) -> Iterator[tuple[Item, Outcome]]:
    """Do the work on the cluster, and yield each file with its outcome as it is done.

    A worker that is lost may have done a part of its batch: what is current stays, unless everything is to be replaced.
    """
    from distributed import as_completed

    work = replace(work, resume=work.resume or not work.force)
    run = _Run(client, with_sizes([_absolute(item) for item in files]), work)
    done = as_completed(loop=client.loop)
    running: dict[Future[Any], _Batch | _FrameTask] = {}
    while True:
        while task := run.next_task(len(running)):
            future = task.submit(client, work)
            running[future] = task
            done.add(future)
        yield from run.take_outcomes()
        if not running:
            return
        future = next(done)
        running.pop(future).finish(future, run)
        yield from run.take_outcomes()


def _absolute(item: Item) -> Item:
    """Return the item with names that are the same in other working folders."""

    def absolute(name: str) -> str:
        return name if is_url(name) else os.path.abspath(name)

    return replace(item, source=absolute(item.source), target=item.target and absolute(item.target))


def with_sizes(files: Sequence[Item]) -> list[Item]:
    """Return the files with their sizes; where one cannot be found out, its task will say why."""

    def size(item: Item) -> int | None:
        try:
            found = status(item.source)
        except (LlmzipError, OSError):
            return None
        return found.size if found else None

    unknown = [item for item in files if item.size is None]
    with ThreadPoolExecutor(STATUS_REQUESTS) as pool:
        sizes = dict(zip(unknown, pool.map(size, unknown), strict=True))
    return [replace(item, size=sizes[item]) if item in sizes else item for item in files]


class _Run:
    """What is left to do, and what has been done and not been reported yet."""

    def __init__(self, client: Client, files: list[Item], work: Work):
        self._client, self.work = client, work
        self.frame_bytes = work.frame_size or MAX_SIZE
        self.held = 0  # frames that wait for those before them
        self.again: deque[_Batch] = deque()
        self.suspects: deque[_Batch] = deque()  # single files whose workers were lost: at the end, one at a time
        self._done: list[tuple[Item, Outcome]] = []
        self._threads, self._asked = 0, -math.inf
        cut = work.kind == "compress"
        large = [item for item in files if cut and (item.size or 0) > self.frame_bytes]
        small = [item for item in files if not (cut and (item.size or 0) > self.frame_bytes)]
        share = sum((item.size or 0) + PER_FILE for item in small) // (BATCHES_PER_THREAD * max(1, self.threads()))
        limit = max(1, min(per_minute(work), share))
        self._tasks: Iterator[_Batch | _FrameTask] = chain(
            chain.from_iterable(map(self._frames, large)), (_Batch(batch) for batch in batches(small, limit))
        )

    def threads(self) -> int:
        """Return the number of threads of the cluster, as it was a moment ago."""
        now = time.monotonic()
        if now > self._asked + ASK_AGAIN:
            self._threads, self._asked = sum(self._client.nthreads().values()), now
        return self._threads

    def next_task(self, running: int) -> _Batch | _FrameTask | None:
        """Return a task to give to the scheduler, which has so many; None if it has enough, or if there is none."""
        if running + self.held >= TASKS_PER_THREAD * max(1, self.threads()):
            return None
        task = self.again.popleft() if self.again else next(self._tasks, None)
        if task is None and not running and self.suspects:
            return self.suspects.popleft()
        return task

    def add(self, item: Item, outcome: Outcome) -> None:
        """Report a file."""
        self._done.append((item, outcome))

    def take_outcomes(self) -> list[tuple[Item, Outcome]]:
        """Return what has been reported since the last call."""
        done, self._done = self._done, []
        return done

    def _frames(self, item: Item) -> Iterator[_FrameTask]:
        """Yield the frames of a large file, until one has failed; none if there is nothing to do."""
        try:
            if self.work.resume and item.target is not None and is_current(item.source, item.target):
                self.add(item, Outcome(item.source, "skipped"))
                return
            assembly = _Assembly(item, self)
        except Exception as error:  # the other files get their turn
            self.add(item, failure(item.source, error))
            return
        for number in range(1, assembly.count + 1):
            if assembly.failed:
                return
            yield _FrameTask(assembly, number)


@dataclass(eq=False)
class _Batch:
    """Files that one task works off."""

    files: list[Item]
    attempts: int = 0
    suspect: bool = False

    def submit(self, client: Client, work: Work) -> Future[Any]:
        return client.submit(convert_batch, self.files, work, pure=False)

    def finish(self, future: Future[Any], run: _Run) -> None:
        """Report the files, and try those again that may succeed now."""
        try:
            found: list[Outcome] = future.result()
        except (Exception, CancelledError) as error:
            # One of the files, or one that was worked on beside them, may be what ends the workers.
            if len(self.files) > 1 and not isinstance(error, CancelledError):
                run.again.extend(_Batch([item], self.attempts) for item in self.files)
                return
            if not self.suspect and not isinstance(error, CancelledError):
                run.suspects.append(_Batch(self.files, self.attempts, suspect=True))
                return
            found = [failure(item.source, lost(error)) for item in self.files]
        passing = []
        for item, outcome in zip(self.files, found, strict=True):
            if outcome.passing and self.attempts < RETRIES:
                passing.append(item)
            else:
                run.add(item, outcome)
        if passing:
            run.again.append(_Batch(passing, self.attempts + 1))


class _Assembly:
    """The archive of a large file, whose frames come in any order."""

    def __init__(self, item: Item, run: _Run):
        self.item, self.size = item, item.size or 0
        self.frame_bytes = run.frame_bytes
        self.count = math.ceil(self.size / self.frame_bytes)
        self.failed = False
        self._before = status(item.source)
        self._waiting: dict[int, Future[Any]] = {}
        self._next = 1
        self._output = ExitStack()
        found = None if is_url(item.source) else os.stat(item.source)
        self._file = self._output.enter_context(destination(item.target, found, run.work))
        self._writer = Writer(self._file)

    def put(self, number: int, future: Future[Any], run: _Run) -> None:
        """Take a frame, and write those whose turn it is."""
        if self.failed:
            return
        self._waiting[number] = future
        run.held += 1
        try:
            while self._next in self._waiting:
                run.held -= 1
                self._writer.append(self._waiting.pop(self._next).result())
                self._next += 1
            if self._next > self.count:
                self._complete(run)
        except (Exception, CancelledError) as error:
            self._fail(lost(error), run)

    def _complete(self, run: _Run) -> None:
        if status(self.item.source) != self._before:
            raise FileError(self.item.source, "has changed while it was read")
        archive = self._file.tell()
        if run.work.verify:
            verify(self._file, model=run.work.model, threads=run.work.threads)
        self._output.close()
        run.add(self.item, Outcome(self.item.source, "done", self.size, archive))

    def _fail(self, error: Exception, run: _Run) -> None:
        self.failed = True
        run.held -= len(self._waiting)
        self._waiting.clear()
        self._output.__exit__(type(error), error, error.__traceback__)  # nothing gets its name
        run.add(self.item, failure(self.item.source, error))


@dataclass(eq=False)
class _FrameTask:
    """A frame of a large file."""

    assembly: _Assembly
    number: int

    def submit(self, client: Client, work: Work) -> Future[Any]:
        whole = self.assembly
        arguments: tuple[Any, ...] = (whole.item.source, self.number, whole.size, whole.frame_bytes, work)
        return client.submit(code_frame, *arguments, pure=False, retries=RETRIES)

    def finish(self, future: Future[Any], run: _Run) -> None:
        """Hand the frame to its archive."""
        self.assembly.put(self.number, future, run)


def lost(error: BaseException) -> Exception:
    """Return what is said of a task that did not come back."""
    from distributed import KilledWorker

    if not isinstance(error, Exception) or isinstance(error, CancelledError):
        return LlmzipError("the connection to the cluster is lost (the same command goes on from there)")
    if isinstance(error, KilledWorker):
        return LlmzipError("every worker that worked on it was lost (perhaps it takes more memory than they have)")
    return error
