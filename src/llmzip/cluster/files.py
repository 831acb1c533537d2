"""Files, and the frames of one, on a cluster: the functions to call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from llmzip.batch.names import SUFFIX, archive_name, content_name
from llmzip.batch.plan import Item, inputs, items
from llmzip.batch.report import Outcome, Report
from llmzip.batch.task import Work, failure
from llmzip.cluster.run import outcomes
from llmzip.errors import FileError

if TYPE_CHECKING:
    from distributed import Client

NO_DASK = 'needs dask (pip install "llmzip[cluster]")'
LOCAL = "local"


@contextmanager
def connected(address: str, *, workers: int) -> Iterator[Client]:
    """Connect to a scheduler or, for "local", start so many worker processes; raises FileError."""
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise FileError(address, NO_DASK) from error
    with ExitStack() as stack:
        try:
            if address == LOCAL:
                # Processes are spawned, as dask's default has it: after a fork, file systems hang.
                cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
                address = stack.enter_context(cluster)
            client = Client(address)
        except (OSError, TimeoutError, ValueError) as error:
            raise FileError(str(address), f"cannot be reached: {error}") from error
        yield stack.enter_context(client)


def compress_files(
    files: str | Iterable[str],
    out: str,
    *,
    client: Client,
    model: str | None = None,
    frame_size: int | None = None,
    force: bool = False,
    verify: bool = False,
    progress: Callable[[Outcome], object] | None = None,
) -> Report:
    """Compress files into the folder `out`, which every worker must reach under this name; return what became of them.

    Args:
        files: names of files and folders, or URLs, those with *, ** and ? included.
        client: of the cluster: each of its threads compresses one file or frame at a time.
        model, frame_size: as in :func:`llmzip.compress_stream`.
        force: replace what is there; else archives that are current stay, and those that are not are replaced.
        verify: decompress each archive before it gets its name.
        progress: called with the outcome of each file as it is done.
    """
    work = Work(kind="compress", model=model, frame_size=frame_size, force=force, resume=not force, verify=verify)
    return _run(files, lambda name: not name.endswith(SUFFIX), archive_name, out, client, work, progress)


def decompress_files(
    files: str | Iterable[str],
    out: str,
    *,
    client: Client,
    model: str | None = None,
    memlimit: int | None = None,
    force: bool = False,
    progress: Callable[[Outcome], object] | None = None,
) -> Report:
    """Decompress archives into the folder `out`; arguments as for :func:`compress_files`.

    Files in `out` that are not what an archive holds are replaced only with `force`.
    """
    work = Work(kind="decompress", model=model, memlimit=memlimit, force=force, resume=not force)
    return _run(files, lambda name: name.endswith(SUFFIX), content_name, out, client, work, progress)


def compress_file(
    source: str,
    target: str,
    *,
    client: Client,
    model: str | None = None,
    frame_size: int | None = None,
    force: bool = False,
    verify: bool = False,
) -> None:
    """Compress one file, its frames in parallel, to the archive that :func:`llmzip.compress_stream` makes.

    Arguments as for :func:`compress_files`. Raises FileError if it fails.
    """
    work = Work(kind="compress", model=model, frame_size=frame_size, force=force, resume=not force, verify=verify)
    for _, outcome in outcomes(client, [Item(source, target)], work):
        if outcome.state == "failed":
            raise FileError(outcome.name, outcome.error)


def _run(
    files: str | Iterable[str],
    wanted: Callable[[str], bool],
    derive: Callable[[str], str],
    out: str,
    client: Client,
    work: Work,
    progress: Callable[[Outcome], object] | None,
) -> Report:
    report = Report()

    def count(outcome: Outcome) -> None:
        report.add(outcome)
        if progress:
            progress(outcome)

    def failed(name: str, error: Exception) -> None:
        count(failure(name, error))

    found = inputs([files] if isinstance(files, str) else files, failed, wanted=wanted)
    for _, outcome in outcomes(client, list(items(found, derive, out, failed)), work):
        count(outcome)
    return report
