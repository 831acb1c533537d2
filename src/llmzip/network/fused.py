"""The whole network as one compiled call, on the ``vnni`` and ``int16`` backends.

The same stages as :class:`llmzip.network.cpu.ProductSession`, without a return to Python between them: a step of a
few rows takes a fraction of a millisecond, and two decoding threads that returned 50 times per step would
fight for the interpreter. Weights of all layers are stacked, matrices packed for
:mod:`llmzip.network.matmul_vnni` or :mod:`llmzip.network.matmul_int16`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from llmzip.jit import jit
from llmzip.network import kernels
from llmzip.network.matmul import PACKERS, RECHECK_EVERY, packed_product
from llmzip.network.softmax import multiply
from llmzip.network.weights import Weights


class Stack(NamedTuple):
    """Hold the weights for :func:`forward`; the first axis is the layer, but for embedding and head.

    Matrices are there twice: packed, and plain to recheck products.
    """

    embedding: np.ndarray
    embedding_scale: np.ndarray
    token_shift: np.ndarray
    token_in: np.ndarray
    token_in_plain: np.ndarray
    token_in_scale: np.ndarray
    forget_bias: np.ndarray
    token_out: np.ndarray
    token_out_plain: np.ndarray
    token_out_scale: np.ndarray
    channel_shift: np.ndarray
    channel_up: np.ndarray
    channel_up_plain: np.ndarray
    channel_up_scale: np.ndarray
    channel_down: np.ndarray
    channel_down_plain: np.ndarray
    channel_down_scale: np.ndarray
    head: np.ndarray
    head_plain: np.ndarray
    inverse_width: np.float32


def stack(weights: Weights, backend: str) -> Stack:
    """Stack the weights and pack them for a backend."""
    layers, pack = weights.layers, PACKERS[backend]
    kinds = list(zip(*(x.matrices() for x in layers), strict=True))
    packed = [np.stack([pack(m.q) for m in matrices]) for matrices in kinds]
    plain = [np.stack([m.q for m in matrices]) for matrices in kinds]
    scales = [np.stack([m.scale for m in matrices]) for matrices in kinds]
    return Stack(
        embedding=weights.embedding.q,
        embedding_scale=weights.embedding.scale,
        token_shift=np.stack([x.token_shift for x in layers]),
        token_in=packed[0],
        token_in_plain=plain[0],
        token_in_scale=scales[0],
        forget_bias=np.stack([x.forget_bias for x in layers]),
        token_out=packed[1],
        token_out_plain=plain[1],
        token_out_scale=scales[1],
        channel_shift=np.stack([x.channel_shift for x in layers]),
        channel_up=packed[2],
        channel_up_plain=plain[2],
        channel_up_scale=scales[2],
        channel_down=packed[3],
        channel_down_plain=plain[3],
        channel_down_scale=scales[3],
        head=pack(weights.head_cluster.q),
        head_plain=weights.head_cluster.q,
        inverse_width=np.float32(1.0 / weights.width),
    )


@jit
def row_is_right(q, weight, acc):
    """Tell whether `acc` is the product of the row `q` and `weight` int8 ``[N, K]``, by plain sums."""
    expected = np.empty(weight.shape[0], np.int32)
    multiply(weight, 0, q, expected)
    wrong = 0
    for n in range(len(expected)):
        wrong += 1 if expected[n] != acc[n] else 0
    return wrong == 0


@jit
def product(q, packed, weight, acc, recheck):
    """Multiply; unless `recheck` is empty, recompute every 128th row from the plain `weight` and count the wrong ones.

    `recheck` int64 ``[3]``: rows since the last check, checks so far, wrong rows.
    """
    packed_product(q, packed, acc)
    if len(recheck) == 0:
        return
    recheck[0] += len(q)
    while recheck[0] >= RECHECK_EVERY:
        recheck[0] -= RECHECK_EVERY
        row = recheck[1] % len(q)
        recheck[1] += 1
        if not row_is_right(q[row], weight, acc[row]):
            recheck[2] += 1


@jit
def forward(ids, net, state, work, hidden, scale, recheck):
    """Run inputs int32 ``[T * B]`` in time order through the network and the head's first product (Step 1-9).

    Writes `hidden` int16 ``[T * B, d]``, `scale` float32 ``[T * B]``, `work.acc_head`; updates `state`.
    """
    x, q, s, scratch = work.x, work.q, work.s, work.scratch
    kernels.embed(ids, net.embedding, net.embedding_scale, x)
    for i in range(net.token_shift.shape[0]):
        kernels.shifted_input(x, net.inverse_width, net.token_shift[i], state.last_token[i], q, s, scratch)
        product(q, net.token_in[i], net.token_in_plain[i], work.acc_in, recheck)
        kernels.recur(work.acc_in, s, net.token_in_scale[i], net.forget_bias[i], state.h[i], q, s, scratch)
        product(q, net.token_out[i], net.token_out_plain[i], work.acc, recheck)
        kernels.add_residual(x, work.acc, s, net.token_out_scale[i])
        kernels.shifted_input(x, net.inverse_width, net.channel_shift[i], state.last_channel[i], q, s, scratch)
        product(q, net.channel_up[i], net.channel_up_plain[i], work.acc_up, recheck)
        kernels.square(work.acc_up, s, net.channel_up_scale[i], work.q_hidden, s, work.scratch_hidden)
        product(work.q_hidden, net.channel_down[i], net.channel_down_plain[i], work.acc, recheck)
        kernels.add_residual(x, work.acc, s, net.channel_down_scale[i])
    kernels.final_rows(x, net.inverse_width, hidden, scale, q, work.q_low, scratch)
    product(q, net.head, net.head_plain, work.acc_head, recheck)
    product(work.q_low, net.head, net.head_plain, work.acc_low, recheck)
    kernels.join(work.acc_head, work.acc_low)
