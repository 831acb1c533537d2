"""What came of an attack, counted."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable

from llmzip.errors import LlmzipError

# Of processor time: 28 bytes can hold a megabyte that repeats itself, which takes half a minute.
SLOW_SECONDS = 120


class Findings:
    """What came of an attack, counted; what must not happen begins with "WRONG"."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def add(self, outcome: str, example: str = "") -> None:
        """Count an outcome."""
        self.counts[outcome] += 1
        self.examples.setdefault(outcome, example)

    def print(self, title: str) -> bool:
        """Print a section, and return whether nothing wrong is in it."""
        print(f"{title}: {sum(self.counts.values())}")
        for outcome, count in sorted(self.counts.items()):
            print(f"  {count:7} {outcome}" + (f" ({self.examples[outcome]})" if outcome.startswith("WRONG") else ""))
        sys.stdout.flush()
        return not any(outcome.startswith("WRONG") for outcome in self.counts)


def judged(findings: Findings, action: Callable[[], bytes | None], expected: bytes | None, example: str) -> None:
    """Run something and count what came of it; `expected` is the right content, None if any will do."""
    started = time.process_time()
    try:
        content = action()
        wrong = content is not None and expected is not None and content != expected
        outcome = "WRONG bytes" if wrong else "content"
    except LlmzipError as error:
        outcome = type(error).__name__
    except Exception as error:
        outcome = f"WRONG {type(error).__name__}: {error}"[:100]
    if time.process_time() - started > SLOW_SECONDS:
        outcome = f"WRONG more than {SLOW_SECONDS} s"
    findings.add(outcome, example)
