"""Short texts to payloads and back with a language model, many at a time: one lane of the network for each.

A text's payload depends on nothing but the text and the model. The mixer learns nothing
(docs/experiments/2026-11-28-short-texts.md), so all texts share its tables.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmzip.coding import lanes, range_coder, text_kernels
from llmzip.coding.text_kernels import Texts
from llmzip.coding.token_coder import TokenCoder
from llmzip.coding.token_kernels import OK, append_tokens
from llmzip.container.small import MOST_BYTES
from llmzip.mixing.initial_state import InitialState
from llmzip.mixing.layout import CONTEXTS, MATCHES, SLOT_BYTES, matches_for
from llmzip.mixing.state import frozen_mixer
from llmzip.mixing.text_buffer import LANE, PADDING, new_text_buffer
from llmzip.network.head import new_work

TOGETHER = 64  # texts
TOGETHER_PUBLISHED = 8  # with a published model, whose windows are large
GAP = MOST_BYTES + PADDING  # where the dictionary begins
MEMORY = 1 << 27  # bytes for the buffers of all texts, about


def slot_bytes(size: int) -> int:
    """Return the bytes of the slots of all contexts for a text of `size` bytes."""
    return CONTEXTS * SLOT_BYTES << max(5, size.bit_length() + 2)


class TextCoder:
    """The coder of short texts with one model; for one thread at a time. `token_coder` has model and network."""

    def __init__(self, token_coder: TokenCoder, initial_state: InitialState):
        self._parent = token_coder
        self._mixer, self._work = frozen_mixer(initial_state), new_work(token_coder.tree)
        dictionary, size = token_coder.dictionary, token_coder.dictionary_bytes
        known = new_text_buffer([size], MATCHES * matches_for(size))
        if size:
            append_tokens(dictionary, 0, token_coder.tree, known)
        self._known_text = known.text
        self._known_matches = np.where(known.matches > 0, known.matches + GAP, 0).astype(np.int32)
        template = new_text_buffer([0, size])
        self._lanes = template.lanes.copy()
        for name in ("start", "end", "at", "line"):
            self._lanes[name][1] = GAP + (0 if name in ("start", "line") else size)
        each = 2 * (GAP + size + PADDING) + known.matches.nbytes + slot_bytes(MOST_BYTES)
        self._together = max(1, min(TOGETHER_PUBLISHED if token_coder.published else TOGETHER, MEMORY // each))
        self._buffers: Texts | None = None

    def _texts(self, sizes: Sequence[int]) -> Texts:
        """Return the state before texts of these sizes."""
        count, most = len(sizes), max(map(slot_bytes, sizes))
        kept = self._buffers
        if kept is None or len(kept.text) < count or kept.slots.shape[1] < most:
            rows = max(count, len(kept.text) if kept else 0)
            text = np.zeros((rows, GAP + len(self._known_text)), np.uint16)
            text[:, GAP:] = self._known_text
            kept = self._buffers = Texts(
                text,
                np.zeros((rows, 2), LANE),
                np.zeros((rows, len(self._known_matches)), np.int32),
                np.zeros((rows, most), np.uint8),
                np.zeros(rows, np.int64),
                np.zeros((rows, range_coder.STATE_SIZE), np.int64),
                np.zeros(rows, np.int64),
            )
        texts = Texts(*(array[:count] for array in kept))
        texts.lanes[:] = self._lanes
        texts.lanes["end"][:, 0] = sizes
        texts.matches[:] = self._known_matches
        texts.slots[:, :most] = 0
        texts.slot_bytes[:] = [slot_bytes(size) for size in sizes]
        texts.status[:] = OK
        return texts

    def encode(self, contents: Sequence[bytes]) -> list[bytes | None]:
        """Return the payload of each text, None where it would be as long as the text; none may be empty."""
        tokens = [self._parent.tokenizer.encode(content) for content in contents]
        order = sorted(range(len(contents)), key=lambda i: len(tokens[i]))
        payloads: list[bytes | None] = [None] * len(contents)
        for at in range(0, len(order), self._together):
            group = order[at : at + self._together]
            grid = np.full((max(len(tokens[i]) for i in group), len(group)), -1, np.int32)
            for lane, i in enumerate(group):
                grid[: len(tokens[i]), lane] = tokens[i]
            for i, payload in zip(group, self._encode(grid, [len(contents[i]) for i in group]), strict=True):
                payloads[i] = payload
        return payloads

    def _encode(self, grid: np.ndarray, sizes: list[int]) -> list[bytes | None]:
        parent, texts = self._parent, self._texts(sizes)
        texts.coders[:] = coder = range_coder.new_encoder()
        # As in TokenCoder.encode_frame: room for the costliest token beyond the longest payload.
        out = np.empty((len(sizes), range_coder.bytes_at_most(coder, parent.tree.height) + max(sizes)), np.uint8)
        session = parent.network.session(len(sizes), recheck=True)
        steps = max(1, parent.segment_rows // len(sizes))
        for at in range(0, len(grid), steps):
            prediction = session.run(lanes.inputs_of(grid, parent.bos, at, steps))
            text_kernels.encode_texts(
                grid[at : at + steps], prediction, parent.tables, texts, self._mixer, self._work, out
            )
        payloads: list[bytes | None] = []
        for i, size in enumerate(sizes):
            end = int(range_coder.finish(texts.coders[i], out[i])) if texts.status[i] == OK else size
            payloads.append(out[i, :end].tobytes() if end < size else None)
        return payloads

    def decode(self, payloads: Sequence[bytes], sizes: Sequence[int]) -> list[bytes | None]:
        """Return the texts of `payloads`, None where no encoder made the payload for a text of that size."""
        order = sorted(range(len(sizes)), key=lambda i: len(payloads[i]))
        contents: list[bytes | None] = [None] * len(sizes)
        for at in range(0, len(order), self._together):
            group = order[at : at + self._together]
            found = self._decode([payloads[i] for i in group], [sizes[i] for i in group])
            for i, content in zip(group, found, strict=True):
                contents[i] = content
        return contents

    def _decode(self, payloads: list[bytes], sizes: list[int]) -> list[bytes | None]:
        parent, texts = self._parent, self._texts(sizes)
        data = np.frombuffer(b"".join(payloads), np.uint8).copy()  # the kernels are compiled for writable arrays
        starts = np.concatenate([[0], np.cumsum([len(payload) for payload in payloads])]).astype(np.int64)
        parts = np.split(data, starts[1:-1])
        for coder, part in zip(texts.coders, parts, strict=True):
            coder[:] = range_coder.new_decoder(part)
        session = parent.session(len(sizes))
        tokens = np.full(len(sizes), parent.bos, np.int32)
        waiting = len(sizes)
        while waiting:
            prediction = session.run(tokens[None])
            waiting = text_kernels.decode_texts(
                prediction, parent.tables, texts, self._mixer, self._work, data, starts, tokens
            )
        return [
            texts.text[i, :size].astype(np.uint8).tobytes()
            if texts.status[i] == OK and range_coder.used_up(texts.coders[i], parts[i])
            else None
            for i, size in enumerate(sizes)
        ]
