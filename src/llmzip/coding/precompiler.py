"""Compile the encoder's loop in a process of its own, while this one compiles the tokenizer and the network.

The loop is half of what the first compression has to compile, and numba compiles in one thread of a process at a time.
The other process keeps what it has compiled in the cache on disk, where this one finds it; whatever happens to it, this
one compiles for itself what it does not find.
"""

from __future__ import annotations

import atexit
import functools
import os
import subprocess
import sys
import threading

import numpy as np

from llmzip.coding import lanes, range_coder, token_kernels
from llmzip.coding.token_kernels import FrameState, TokenTables
from llmzip.jit import can_keep_kernels, compiled_before
from llmzip.mixing.state import new_mixer
from llmzip.mixing.text_buffer import new_text_buffer
from llmzip.model import registry
from llmzip.network import networks
from llmzip.network.head import Prediction, new_work
from llmzip.threads import usable_cores
from llmzip.vocabulary.tree import DecisionTree, bind_clusters

PATIENCE = 120  # seconds: many times what it takes


@functools.cache
def start() -> None:
    """Start the other process, once, if that is of use; the kernel waits for it where it is first needed."""
    if compiled_before("encode_steps") or usable_cores() < 2 or not sys.executable or not can_keep_kernels():
        return
    # Modules come from where ours came from, never from the working directory.
    safely = "-I" if sys.flags.isolated else "-P"
    command = [sys.executable, safely, "-m", __name__]
    try:
        # It ends when its standard input does: when this process ends, however it does.
        nothing = subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=nothing, stderr=nothing)  # noqa: S603
    except OSError:
        return
    atexit.register(_end, process)
    token_kernels.encode_steps.compiled_elsewhere(functools.partial(_wait, process))


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def compile_encoder() -> None:
    """Compile the encoder's loop for the default model, by a call with nothing to do."""
    model = registry.load(registry.DEFAULT)
    weights = model.weights
    tree = bind_clusters(DecisionTree.build(model.tokenizer.tokens), weights.cluster_starts)
    mixer = new_mixer(len(tree.nodes), 1, model.initial_state, model=True)
    frame = FrameState(new_text_buffer([1, 0]), mixer, new_work(tree))
    grid = lanes.cut(np.full(1, -1, np.int32), 1)
    prediction = Prediction(np.zeros((1, 1, 1), np.int32), np.zeros((1, 1, 1), np.int16), np.zeros((1, 1), np.float32))
    tables = TokenTables(networks.head_of(weights), tree)
    token_kernels.encode_steps(grid, prediction, tables, frame, range_coder.new_encoder(), np.zeros(1, np.uint8))


def _end_with_input() -> None:
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_input, daemon=True).start()
    compile_encoder()
