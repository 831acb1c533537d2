"""Frames without a language model: bytes in the place of tokens, the mixer on its own (the model called `none`).

An adaptive Markov model of mixed orders. It is the fast level, and the better one for what is no text.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llmzip import coder, walk
from llmzip.errors import FormatError
from llmzip.history import History, new_history
from llmzip.mixing import Mixer, new_mixer
from llmzip.start import Start
from llmzip.tree import DecisionTree, bind_clusters

Progress = Callable[[int], None]  # is told the bytes done since the last call
STRETCH = 1 << 16  # bytes between two reports of progress


class ByteCoder:
    """Code frames from given start values."""

    def __init__(self, start: Start):
        self.start = start
        self.tree = bind_clusters(DecisionTree.build([bytes([i]) for i in range(256)]), [0])

    def encode(self, data: bytes, *, capacity: int | None = None, progress: Progress | None = None) -> bytes | None:
        """Return the payload for at least one byte, or None if it takes more than `capacity` bytes.

        That is by default one less than `data` has: a payload as large would better be stored.
        """
        limit = len(data) - 1 if capacity is None else capacity
        state = coder.new_encoder()
        # The walk begins no byte without room for the costliest: that must not count against a short payload.
        out = np.empty(coder.bytes_at_most(state, self.tree.height) + limit, np.uint8)
        content = np.frombuffer(data, np.uint8)
        history, mixer = self.begin_walk(len(data))
        for at in range(0, len(content), STRETCH):
            part = content[at : at + STRETCH].copy()  # the kernels are compiled for writable arrays
            if walk.encode_bytes(part, self.tree, history, mixer, state, out) == walk.OVERFLOW:
                return None
            if progress:
                progress(len(part))
        size = int(coder.finish(state, out))
        return out[:size].tobytes() if size <= limit else None

    def decode(self, payload: bytes, size: int, *, progress: Progress | None = None) -> bytes:
        """Return the `size` bytes of a frame; raises FormatError for a payload that no encoder made."""
        data = np.frombuffer(payload, np.uint8).copy()
        state = coder.new_decoder(data)
        history, mixer = self.begin_walk(size)
        for at in range(0, size, STRETCH):
            part = min(STRETCH, size - at)
            if walk.decode_bytes(part, self.tree, history, mixer, state, data) == walk.OVERREAD:
                raise FormatError(coder.TOO_SHORT)
            if progress:
                progress(part)
        if not coder.used_up(state, data):
            raise FormatError(coder.NOT_USED_UP)
        return history.text[:size].astype(np.uint8).tobytes()

    def begin_walk(self, size: int) -> tuple[History, Mixer]:
        """Return the state before a frame of `size` bytes."""
        return new_history([size]), new_mixer(len(self.tree.nodes), size, self.start, model=False)
