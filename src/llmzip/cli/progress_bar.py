"""The progress bar on standard error, for a person who is there to see it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from llmzip.coding.progress import Progress


def on_terminal() -> bool:
    """Return whether standard error is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


@contextmanager
def progress_bar(label: str, total: int | None, *, shown: bool = True) -> Iterator[Progress | None]:
    """Show the bytes done of `total`, which may be unknown; yield what to report them to, None if none are shown."""
    if not shown:
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=label, unit="B", unit_scale=True, leave=False) as bar:
        yield bar.update
