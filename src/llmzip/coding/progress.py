"""Reports of progress: how a long operation says how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int], None]  # called with the number of bytes done since the last call
