"""Frames without a language model: bytes in the place of tokens, the mixer on its own (the model called `none`).

An adaptive Markov model of mixed orders. It is the fast level, and the better one for data other than text.
"""

from __future__ import annotations

import numpy as np

from llmzip.coding import range_coder, token_kernels
from llmzip.coding.progress import Progress
from llmzip.coding.token_kernels import ByteFrameState
from llmzip.errors import FormatError
from llmzip.mixing.initial_state import InitialState
from llmzip.mixing.state import new_mixer
from llmzip.mixing.text_buffer import new_text_buffer
from llmzip.vocabulary.tree import DecisionTree, bind_clusters

BITS = 8  # decisions of a byte
SEGMENT_BYTES = 1 << 16  # bytes between two reports of progress


class ByteCoder:
    """The coder of frames without a language model, from a given initial state."""

    def __init__(self, initial_state: InitialState):
        self.initial_state = initial_state
        self.tree = bind_clusters(DecisionTree.build([bytes([i]) for i in range(256)]), [0])

    def encode(self, data: bytes, *, capacity: int | None = None, progress: Progress | None = None) -> bytes | None:
        """Return the payload of at least one byte, or None if it takes more than `capacity` bytes.

        The default is one less than `data` has: a payload as large would better be stored.
        """
        limit = len(data) - 1 if capacity is None else capacity
        return self.encode_frame(data, self.begin_frame(len(data)), limit, progress)

    def encode_frame(
        self, data: bytes, frame: ByteFrameState, limit: int, progress: Progress | None = None
    ) -> bytes | None:
        """Return the payload of `data`, or None if it takes more than `limit` bytes."""
        coder = range_coder.new_encoder()
        # The kernel begins no byte without room for the costliest: that must not count against a short payload.
        out = np.empty(range_coder.bytes_at_most(coder, self.tree.height) + limit, np.uint8)
        content = np.frombuffer(data, np.uint8)
        for at in range(0, len(content), SEGMENT_BYTES):
            part = content[at : at + SEGMENT_BYTES].copy()  # the kernels are compiled for writable arrays
            if token_kernels.encode_bytes(part, self.tree, frame, coder, out) == token_kernels.OVERFLOW:
                return None
            if progress:
                progress(len(part))
        size = int(range_coder.finish(coder, out))
        return out[:size].tobytes() if size <= limit else None

    def decode(self, payload: bytes, size: int, *, progress: Progress | None = None) -> bytes:
        """Return the `size` bytes of a frame; raises FormatError for a payload that no encoder made."""
        if size * BITS > range_coder.most_decisions(len(payload)):
            raise FormatError(range_coder.TOO_MUCH)
        data = np.frombuffer(payload, np.uint8).copy()
        coder, frame = range_coder.new_decoder(data), self.begin_frame(size)
        for at in range(0, size, SEGMENT_BYTES):
            part = min(SEGMENT_BYTES, size - at)
            if token_kernels.decode_bytes(part, self.tree, frame, coder, data) == token_kernels.OVERREAD:
                raise FormatError(range_coder.TOO_SHORT)
            if progress:
                progress(part)
        if not range_coder.used_up(coder, data):
            raise FormatError(range_coder.NOT_USED_UP)
        return frame.buffer.text[:size].astype(np.uint8).tobytes()

    def begin_frame(self, size: int, *, traced: int = 0) -> ByteFrameState:
        """Return the state before a frame of `size` bytes; `traced` decisions can be recorded."""
        mixer = new_mixer(len(self.tree.nodes), size, self.initial_state, model=False, traced=traced)
        return ByteFrameState(new_text_buffer([size]), mixer)
