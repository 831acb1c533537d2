"""Frames to payloads and back with a language model: tokens, lanes, network and kernels put together, in threads.

The encoder knows all tokens, so worker threads run the network over whole segments of time while the calling thread
codes the segment before. The decoder steps: each thread owns a group of lanes, decodes their tokens in turn with the
other groups, and runs the network over them while the others decode. The order of coding is the same in both, and the
bytes depend neither on the number of threads nor on the length of a segment.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from llmzip.coding import lanes, range_coder, token_kernels
from llmzip.coding.progress import Progress
from llmzip.coding.token_kernels import FrameState, TokenTables
from llmzip.errors import FormatError, ModelError
from llmzip.mixing.state import new_mixer
from llmzip.mixing.text_buffer import TextBuffer, add_behind, new_text_buffer
from llmzip.model.file import Model
from llmzip.network import networks
from llmzip.network.head import new_work
from llmzip.network.heads import AnyPrediction, join
from llmzip.threads import Worker, groups_of, start_all
from llmzip.vocabulary.tree import DecisionTree, bind_clusters, most_bytes_per_decision

SEGMENTS_AHEAD = 2  # of the network: threads that have finished one do not wait for the coder


@dataclass(frozen=True)
class Coded:
    """A coded frame."""

    payload: bytes
    lane_bytes: list[int]  # bytes of the original in each lane


class FrameCoder:
    """A frame while it is encoded or decoded."""

    def __init__(self, tables: TokenTables, state: FrameState):
        self.tables, self.state = tables, state

    def encode(self, tokens: np.ndarray, prediction: AnyPrediction, coder: np.ndarray, out: np.ndarray) -> int:
        """Encode a segment of tokens int32 ``[T, B]`` and return the kernel's status."""
        status: int = token_kernels.encode_steps(tokens, prediction, self.tables, self.state, coder, out)
        return status

    def decode(
        self, group: slice, prediction: AnyPrediction, coder: np.ndarray, payload: np.ndarray, tokens: np.ndarray
    ) -> None:
        """Decode one step of a group of lanes into `tokens` int32 ``[B]``; raises FormatError."""
        status = token_kernels.decode_step(group.start, prediction, self.tables, self.state, coder, payload, tokens)
        if status == token_kernels.OVERREAD:
            raise FormatError(range_coder.TOO_SHORT)
        if status == token_kernels.TOO_LONG:
            raise FormatError("a token runs over the end of its lane")

    def bytes_left(self, group: slice) -> int:
        """Return the number of bytes that a group of lanes still lacks."""
        records = self.state.buffer.lanes[group]
        return int((records["end"] - records["at"]).sum())


class TokenCoder:
    """The coder of frames with one model.

    `threads` is the number of threads that run the network; `device` other than "cpu" runs it on that torch device;
    `backend` and `segment_rows` are for tests. None of them changes a byte.
    """

    def __init__(
        self,
        model: Model,
        *,
        threads: int = 1,
        device: str = "cpu",
        backend: str | None = None,
        segment_rows: int | None = None,
    ):
        weights = model.weights
        self.tokenizer, self.threads = model.tokenizer, threads
        self.bos, self.published = weights.bos, model.published
        try:
            self.tree = bind_clusters(DecisionTree.build(model.tokenizer.tokens), weights.cluster_starts)
        except ValueError as error:
            raise ModelError(f"the model file is damaged: {error}") from error
        self._bytes_per_decision = most_bytes_per_decision(self.tree)
        self.head = networks.head_of(weights)
        self.tables = TokenTables(self.head, self.tree)
        self.lengths = np.diff(model.tokenizer.offsets).astype(np.int32)
        self.initial_state = model.initial_state
        self.dictionary = model.dictionary.astype(np.int32)
        self.dictionary_bytes = int(self.lengths[self.dictionary].sum())
        self._known: TextBuffer | None = None  # the dictionary in a text buffer
        self.network = networks.bind(weights, device=device, backend=backend)
        self.segment_rows = segment_rows or self.network.segment_rows

    def encode(
        self,
        data: bytes,
        *,
        lane_count: int | None = None,
        capacity: int | None = None,
        progress: Progress | None = None,
    ) -> Coded | None:
        """Return a coded frame of at least one byte, or None if its payload takes more than `capacity` bytes.

        The default is one less than `data` has: a payload as large would better be stored.
        """
        grid = self.grid(data, lane_count)
        lane_bytes = self.lane_bytes(grid)
        limit = len(data) - 1 if capacity is None else capacity
        payload = self.encode_frame(grid, self.begin_frame(lane_bytes), limit, progress)
        return None if payload is None else Coded(payload, lane_bytes)

    def grid(self, data: bytes, lane_count: int | None = None) -> np.ndarray:
        """Return the tokens of `data`, cut into as many lanes as suit it, int32 ``[T, B]``."""
        tokens = self.tokenizer.encode(data)
        return lanes.cut(tokens, lane_count or self.lanes_for(data, tokens))

    def lanes_for(self, data: bytes, tokens: np.ndarray) -> int:
        """Return the number of lanes that suit a frame; `tokens` are those of its content `data`."""
        return lanes.lanes_of_published(len(data)) if self.published else lanes.lanes_for(len(tokens))

    def encode_frame(
        self, grid: np.ndarray, frame: FrameCoder, limit: int, progress: Progress | None = None
    ) -> bytes | None:
        """Return the payload of a grid of tokens, or None if it takes more than `limit` bytes."""
        coder = range_coder.new_encoder()
        # The kernel begins no token without room for the costliest: that must not count against a short payload.
        out = np.empty(range_coder.bytes_at_most(coder, self.tree.height) + limit, np.uint8)
        at = 0
        with closing(self._predictions(grid)) as predictions:
            for prediction in predictions:
                part = grid[at : at + len(prediction[0])]
                at += len(part)
                if frame.encode(part, prediction, coder, out) == token_kernels.OVERFLOW:
                    return None
                if progress:
                    progress(int(self.lengths[part[part >= 0]].sum()))
        size = int(range_coder.finish(coder, out))
        return out[:size].tobytes() if size <= limit else None

    def lane_bytes(self, grid: np.ndarray) -> list[int]:
        """Return the bytes of the tokens in each lane of a grid ``[T, B]``."""
        return [int(self.lengths[lane[lane >= 0]].sum(dtype=np.int64)) for lane in grid.T]

    def _predictions(self, grid: np.ndarray) -> Generator[AnyPrediction]:
        """Yield the predictions for segments of a grid ``[T, B]``, with a thread for each group of lanes."""
        groups = groups_of(grid.shape[1], self.threads)
        sessions = [self.network.session(g.stop - g.start, recheck=True) for g in groups]
        steps = max(1, self.segment_rows * len(groups) // grid.shape[1])

        with ExitStack() as stack:
            workers = [stack.enter_context(Worker()) for _ in groups]  # a session is for one thread

            def start(at: int) -> list[Future[AnyPrediction]]:
                inputs = lanes.inputs_of(grid, self.bos, at, steps)
                parts = [np.ascontiguousarray(inputs[:, g]) for g in groups]
                return [w.submit(s.run, p) for w, s, p in zip(workers, sessions, parts, strict=True)]

            starts = iter(range(0, len(grid), steps))
            ahead = deque(map(start, islice(starts, SEGMENTS_AHEAD)))
            while ahead:
                done = [future.result() for future in ahead.popleft()]
                ahead.extend(map(start, islice(starts, 1)))
                yield done[0] if len(done) == 1 else join(done)

    def decode(self, payload: bytes, lane_bytes: list[int], *, progress: Progress | None = None) -> bytes:
        """Decode a frame; raises FormatError for a payload that no encoder made, whatever its bytes."""
        if sum(lane_bytes) > range_coder.most_decisions(len(payload)) * self._bytes_per_decision:
            raise FormatError(range_coder.TOO_MUCH)
        data = np.frombuffer(payload, np.uint8).copy()  # the kernels are compiled for writable arrays
        coder = range_coder.new_decoder(data)
        text = _FrameDecoder(self, data, lane_bytes, coder, progress).run()
        if not range_coder.used_up(coder, data):
            raise FormatError(range_coder.NOT_USED_UP)
        return text.tobytes()

    def new_text_buffer(self, lane_bytes: list[int]) -> TextBuffer:
        """Return the text buffer before a frame whose lanes have `lane_bytes` bytes: the dictionary, behind them."""
        buffer = new_text_buffer([*lane_bytes, self.dictionary_bytes])
        if self.dictionary_bytes:
            known, matches = self._known, len(buffer.matches)
            if known is None or len(known.matches) != matches:  # most frames of a model need the same size
                known = new_text_buffer([self.dictionary_bytes], matches)
                token_kernels.append_tokens(self.dictionary, 0, self.tree, known)
                self._known = known
            add_behind(known, buffer)
        return buffer

    def begin_frame(self, lane_bytes: list[int], *, traced: int = 0) -> FrameCoder:
        """Return the state before a frame whose lanes have `lane_bytes` bytes; `traced` decisions can be recorded."""
        mixer = new_mixer(len(self.tree.nodes), sum(lane_bytes), self.initial_state, model=True, traced=traced)
        return FrameCoder(self.tables, FrameState(self.new_text_buffer(lane_bytes), mixer, new_work(self.tree)))

    def session(self, lane_count: int) -> networks.Session:
        """Return a fresh network state for `lane_count` lanes."""
        return self.network.session(lane_count)


class _FrameDecoder:
    """The decoding of one frame in as many threads as there are groups of lanes, which take turns."""

    def __init__(
        self,
        token_coder: TokenCoder,
        payload: np.ndarray,
        lane_bytes: list[int],
        coder: np.ndarray,
        progress: Progress | None,
    ):
        self.token_coder, self.payload, self.coder, self.progress = token_coder, payload, coder, progress
        self.size, self.lane_count = sum(lane_bytes), len(lane_bytes)
        self.frame = token_coder.begin_frame(lane_bytes)
        self.groups = groups_of(len(lane_bytes), token_coder.threads)
        self.active = [self.frame.bytes_left(g) > 0 for g in self.groups]
        self.turn = self._next(-1)
        self.changed = threading.Condition()
        self.failure: BaseException | None = None

    def _next(self, index: int) -> int:
        """Return the group whose turn follows that of `index`."""
        count = len(self.groups)
        order = [(index + 1 + i) % count for i in range(count)]
        return next((g for g in order if self.active[g]), -1)

    def run(self) -> np.ndarray:
        """Return the text, uint8."""
        # The calling thread only waits: an interrupt there cannot meet it holding the lock.
        workers = start_all([partial(self._guarded, g) for g in range(len(self.groups))])
        try:
            for worker in workers:
                worker.join()
        except BaseException as error:  # an interrupt, too, must not leave the others waiting for their turn
            self._fail(error)
        for worker in workers:
            worker.join()
        if not workers:
            self.groups = groups_of(self.lane_count, 1)
            self.active, self.turn = [self.size > 0], 0
            self._run_group(0)
        failure, self.failure = self.failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                # Its traceback leads here: a cycle would keep the frame's tables until the garbage collector comes.
                failure = None
        return self.frame.state.buffer.text[: self.size].astype(np.uint8)

    def _guarded(self, index: int) -> None:
        try:
            self._run_group(index)
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self.changed:
            self.failure = self.failure or error
            self.changed.notify_all()

    def _run_group(self, index: int) -> None:
        token_coder, group, frame = self.token_coder, self.groups[index], self.frame
        session = token_coder.session(group.stop - group.start)
        inputs = np.full((1, group.stop - group.start), token_coder.bos, np.int32)
        out = np.empty(self.lane_count, np.int32)
        while self.active[index]:
            prediction = session.run(inputs)
            with self.changed:
                self.changed.wait_for(lambda: self.turn == index or self.failure)
                if self.failure:
                    return
            out[group] = -1
            before = frame.bytes_left(group)
            frame.decode(group, prediction, self.coder, self.payload, out)
            after = frame.bytes_left(group)
            with self.changed:
                if self.progress:
                    self.progress(before - after)
                self.active[index] = after > 0
                self.turn = self._next(index)
                self.changed.notify_all()
            inputs = np.maximum(out[group], 0)[None]
