"""Frames to payloads and back: tokens, lanes, network and walk put together, in threads.

The encoder knows all tokens, so worker threads run the network over whole stretches of time while the walk codes the
stretch before. The decoder steps: each thread owns a group of lanes, walks them when it is their turn, and runs the
network over them while the other groups walk. The order of coding is the same in both, and the bytes depend neither
on the number of threads nor on the length of a stretch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from llmzip import coder, lanes, walk
from llmzip.errors import FormatError, ModelError
from llmzip.exact import STRETCH_ROWS, ExactNetwork, Prediction
from llmzip.jit import jit
from llmzip.mixing import CONTEXTS, new_maps
from llmzip.modelfile import Model
from llmzip.tree import DecisionTree, bind_clusters

Progress = Callable[[int], None]  # is told the bytes done since the last call


@dataclass(frozen=True)
class Coded:
    """Hold a coded frame."""

    payload: bytes
    lane_bytes: list[int]  # bytes of the original in each lane


class _Walker:
    """Hold what one frame's walk changes: adaptive maps, the lanes' last tokens, buffers."""

    def __init__(self, engine: Engine, lane_count: int, size: int):
        self.engine = engine
        self.maps = new_maps(len(engine.tree.nodes), max(1, size // 4))
        self.work = walk.new_work(engine.tree)
        self.previous = np.full((lane_count, CONTEXTS - 1), -1, np.int32)

    def encode(self, tokens: np.ndarray, seen: Prediction, state: np.ndarray, out: np.ndarray) -> int:
        """Code a stretch of tokens ``[T, B]``."""
        e = self.engine
        rows = seen.cluster_acc, seen.hidden, seen.scale
        return walk.encode_steps(tokens, *rows, e.head, e.tree, self.work, self.maps, state, self.previous, out)

    def decode(
        self, group: slice, left: np.ndarray, seen: Prediction, state: np.ndarray, payload: np.ndarray, out: np.ndarray
    ) -> None:
        """Decode one step of a group of lanes into `out` int32 ``[B]``; raises FormatError."""
        e = self.engine
        rows = seen.cluster_acc[0], seen.hidden[0], seen.scale[0]
        shared = e.head, e.tree, self.work, self.maps, state, self.previous
        status = walk.decode_lanes(group.start, group.stop, left, *rows, *shared, payload, out, e.lengths)
        if status == walk.OVERREAD:
            raise FormatError("the frame's data ends too early")
        if status == walk.TOO_LONG:
            raise FormatError("a token runs over the end of its lane")


class Engine:
    """Code frames with one model.

    `threads` runs the network on so many threads; `device` other than "cpu" runs it on that torch device; `carrier` and
    `stretch_rows` are for tests. None of them changes a byte.
    """

    def __init__(
        self,
        model: Model,
        *,
        threads: int = 1,
        device: str = "cpu",
        carrier: str | None = None,
        stretch_rows: int = STRETCH_ROWS,
    ):
        weights = model.weights
        self.tokenizer, self.threads, self.stretch_rows = model.tokenizer, threads, stretch_rows
        self.vocab, self.begin = weights.vocab, weights.begin
        try:
            self.tree = bind_clusters(DecisionTree.build(model.tokenizer.tokens), weights.cluster_starts)
        except ValueError as error:
            raise ModelError(f"the model file is damaged: {error}") from error
        self.head = walk.new_head(weights.head_token.q, weights.head_cluster.scale, weights.head_token.scale)
        self.lengths = np.diff(model.tokenizer.offsets).astype(np.int32)
        if device == "cpu":
            self._network = ExactNetwork(weights, carrier=carrier)
        else:
            from llmzip.exact_torch import TorchNetwork

            self._network = TorchNetwork(weights, device)

    def encode(
        self,
        data: bytes,
        *,
        lane_count: int | None = None,
        capacity: int | None = None,
        progress: Progress | None = None,
    ) -> Coded | None:
        """Code a frame of at least one byte; return None if it takes more than `capacity` bytes.

        That is by default one less than `data` has: a payload as large would better be stored.
        """
        tokens = self.tokenizer.encode(data)
        count = lane_count or lanes.lanes_for(len(tokens))
        grid = lanes.cut(tokens, count)
        lane_bytes = np.where(grid >= 0, self.lengths[grid], 0).sum(0, dtype=np.int64).tolist()
        limit = len(data) - 1 if capacity is None else capacity
        # The walk begins no token without room for the costliest: that must not count against a short payload.
        out = np.empty(coder.bytes_at_most(coder.new_encoder(), self.tree.height) + limit, np.uint8)
        state, walker = coder.new_encoder(), _Walker(self, count, len(data))
        at = 0
        with closing(self._predictions(lanes.inputs_of(grid, self.begin))) as predictions:
            for seen in predictions:
                part = grid[at : at + len(seen.scale)]
                at += len(part)
                if walker.encode(part, seen, state, out) == walk.OVERFLOW:
                    return None
                if progress:
                    progress(int(self.lengths[part[part >= 0]].sum()))
        size = int(coder.finish(state, out))
        return Coded(out[:size].tobytes(), lane_bytes) if size <= limit else None

    def _predictions(self, inputs: np.ndarray):
        """Yield the predictions of stretches of `inputs` ``[T, B]``, one stretch ahead, on the worker threads."""
        groups = lanes.groups_of(inputs.shape[1], self.threads)
        sessions = [self._network.session(g.stop - g.start, recheck=True) for g in groups]
        steps = max(1, self.stretch_rows * len(groups) // inputs.shape[1])

        with ThreadPoolExecutor(len(groups)) as pool:

            def start(at: int) -> list[Future[Prediction]]:
                parts = [np.ascontiguousarray(inputs[at : at + steps, g]) for g in groups]
                return [pool.submit(s.run, p) for s, p in zip(sessions, parts, strict=True)]

            ahead = start(0)
            for at in range(0, len(inputs), steps):
                done = [future.result() for future in ahead]
                if at + steps < len(inputs):
                    ahead = start(at + steps)
                yield done[0] if len(done) == 1 else Prediction.join(done)

    def decode(self, payload: bytes, lane_bytes: list[int], *, progress: Progress | None = None) -> bytes:
        """Decode a frame; raises FormatError for a payload that no encoder made, whatever its bytes."""
        data = np.frombuffer(payload, np.uint8).copy()  # the kernels are compiled for writable arrays
        state = coder.new_decoder(data)
        text = _Decoding(self, data, lane_bytes, state, progress).run()
        if not coder.used_up(state, data):
            raise FormatError("the frame's data does not end where it should")
        return text.tobytes()

    def session(self, lane_count: int):
        """Return a fresh network state for `lane_count` lanes."""
        return self._network.session(lane_count)


@jit
def _spell(tokens, begin, end, left, ends, blob, offsets, text):
    """Write the tokens just decoded, -1 for none, of ``begin <= lane < end`` into `text`, where `ends` are the lanes'.

    The `left` bytes of a lane come after its token.
    """
    for lane in range(begin, end):
        token = tokens[lane]
        if token >= 0:
            at = ends[lane] - left[lane] - (offsets[token + 1] - offsets[token])
            for i in range(offsets[token], offsets[token + 1]):
                text[at] = blob[i]
                at += 1


class _Decoding:
    """Decode one frame in as many threads as there are groups of lanes, taking turns."""

    def __init__(
        self, engine: Engine, payload: np.ndarray, lane_bytes: list[int], state: np.ndarray, progress: Progress | None
    ):
        self.engine, self.payload, self.state, self.progress = engine, payload, state, progress
        self.left = np.array(lane_bytes, np.int64)
        self.ends = np.cumsum(self.left)
        self.text = np.empty(sum(lane_bytes), np.uint8)  # and no list of tokens: a hostile frame has one per byte
        self.walker = _Walker(engine, len(lane_bytes), sum(lane_bytes))
        self.groups = lanes.groups_of(len(lane_bytes), engine.threads)
        self.active = [bool(self.left[g].any()) for g in self.groups]
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
        workers = [threading.Thread(target=self._guarded, args=(g,)) for g in range(len(self.groups))]
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        except BaseException as error:  # an interrupt, too, must not leave the others waiting for their turn
            self._fail(error)
        for worker in workers:
            if worker.ident is not None:  # it was started
                worker.join()
        if self.failure is not None:
            raise self.failure
        return self.text

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
        engine, group, left = self.engine, self.groups[index], self.left
        words = engine.tokenizer
        session = engine.session(group.stop - group.start)
        inputs = np.full((1, group.stop - group.start), engine.begin, np.int32)
        out = np.empty(len(left), np.int32)
        while self.active[index]:
            seen = session.run(inputs)
            with self.changed:
                self.changed.wait_for(lambda: self.turn == index or self.failure)
                if self.failure:
                    return
            out[group] = -1
            before = int(left[group].sum())
            self.walker.decode(group, left, seen, self.state, self.payload, out)
            after = int(left[group].sum())
            with self.changed:
                if self.progress:
                    self.progress(before - after)
                self.active[index] = after > 0
                self.turn = self._next(index)
                self.changed.notify_all()
            _spell(out, group.start, group.stop, left, self.ends, words.blob, words.offsets, self.text)
            inputs = np.maximum(out[group], 0)[None]
