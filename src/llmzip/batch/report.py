"""What has become of many files: counts, bytes, failures."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Outcome:
    """What has become of one file.

    `text` and `archive` are the bytes on either side, if it is done. `error` says what is wrong with `name`, if it has
    failed; `passing` that the same may succeed a moment later.
    """

    name: str
    state: Literal["done", "skipped", "failed"]
    text: int = 0
    archive: int = 0
    error: str = ""
    passing: bool = False


@dataclass
class Report:
    """The sum of outcomes."""

    done: int = 0
    skipped: int = 0
    text: int = 0
    archive: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)  # name and what is wrong
    _started: float = field(default_factory=time.monotonic)

    def add(self, outcome: Outcome) -> None:
        """Count one file."""
        self.done += outcome.state == "done"
        self.skipped += outcome.state == "skipped"
        self.text += outcome.text
        self.archive += outcome.archive
        if outcome.state == "failed":
            self.failures.append((outcome.name, outcome.error))

    @property
    def ratio(self) -> float | None:
        """Return the uncompressed size, divided by the compressed size, of what was done; None of nothing."""
        return round(self.text / self.archive, 3) if self.archive else None

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` shows."""
        return {
            "files": self.done + self.skipped + len(self.failures),
            "done": self.done,
            "skipped": self.skipped,
            "failed": len(self.failures),
            "uncompressed": self.text,
            "compressed": self.archive,
            "ratio": self.ratio,
            "seconds": round(time.monotonic() - self._started, 3),
            "failures": [{"name": name, "error": error} for name, error in self.failures],
        }

    def line(self) -> str:
        """Return the summary for people."""
        seconds = time.monotonic() - self._started
        parts = [f"{self.done} done", f"{self.skipped} skipped", f"{len(self.failures)} failed"]
        speed = self.text / 1000 / max(seconds, 1e-3)
        sizes = f"{self.text} bytes of content, {self.archive} compressed (ratio {self.ratio or '-'})"
        return f"{', '.join(parts)}; {sizes}; {seconds:.1f} s, {speed:.1f} KB/s"
