"""The forward pass: the network's stages from input ids to the head's first product, docs/FORMAT.md's *Step*.

The stages are written once. Compiled with a matmul backend of our own, :func:`forward` runs all of them in one
call: a step of a few rows takes a fraction of a millisecond, and two decoding threads that returned to Python 50
times per step would compete for the interpreter. :class:`llmzip.network.cpu.ProductSession` runs the same stages as
plain Python around the products of other backends, and puts the token mixers of other architectures in place of
:func:`mix_tokens`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload

from llmzip.jit import inlined, jit
from llmzip.network import kernels
from llmzip.network.matmul import RECHECK_EVERY, Product, row_is_right
from llmzip.network.packed import KERNELS, packed_product
from llmzip.network.weights import Matrix, Weights

Matrices = Any  # packed, an array for kernels; or a list of products, for plain Python


class Stack(NamedTuple):
    """The weights for :func:`forward`; the first axis is the layer, except in the embedding and the head.

    Matrices are there twice: as :func:`product` multiplies them, and plain to recheck products.
    """

    embedding: np.ndarray
    embedding_scale: np.ndarray
    token_shift: np.ndarray | None
    token_in: Matrices
    token_in_plain: Matrices
    token_in_scale: np.ndarray | None
    forget_bias: np.ndarray | None
    token_out: Matrices
    token_out_plain: Matrices
    token_out_scale: np.ndarray | None
    channel_shift: np.ndarray
    channel_up: Matrices
    channel_up_plain: Matrices
    channel_up_scale: np.ndarray
    channel_down: Matrices
    channel_down_plain: Matrices
    channel_down_scale: np.ndarray
    head: Matrices
    head_plain: Matrices
    inverse_width: np.float32


def stack(weights: Weights, backend: str) -> Stack:
    """Return the stacked weights, packed for a backend."""
    pack = KERNELS[backend].pack

    def packed(matrices: Sequence[Matrix]) -> np.ndarray:
        return np.stack([pack(m.q) for m in matrices])

    def plain(matrices: Sequence[Matrix]) -> np.ndarray:
        return np.stack([m.q for m in matrices])

    return _stack(weights, packed, plain, pack(weights.head_cluster.q))


def stack_products(weights: Weights, products: Callable[[Matrix], Product]) -> Stack:
    """Return the weights with a product in place of each matrix, for the stages as plain Python."""

    def bound(matrices: Sequence[Matrix]) -> list[Product]:
        return [products(m) for m in matrices]

    def none(matrices: Sequence[Matrix]) -> list[None]:
        return [None] * len(matrices)  # products recheck themselves

    return _stack(weights, bound, none, products(weights.head_cluster))


def _stack(
    weights: Weights,
    bind: Callable[[Sequence[Matrix]], Matrices],
    plain: Callable[[Sequence[Matrix]], Matrices],
    head: Matrices,
) -> Stack:
    layers = weights.layers

    def bound(name: str) -> dict[str, Any]:
        """Return a matrix of all layers, plain as well, and its scales."""
        matrices = [getattr(layer, name) for layer in layers]
        scales = np.stack([m.scale for m in matrices])
        return {name: bind(matrices), f"{name}_plain": plain(matrices), f"{name}_scale": scales}

    def vectors(*names: str) -> dict[str, Any]:
        return {name: np.stack([getattr(layer, name) for layer in layers]) for name in names}

    # The token mixers of other architectures have weights of their own.
    if weights.arch == "gated":
        token = {**bound("token_in"), **bound("token_out"), **vectors("token_shift", "forget_bias")}
    else:
        token = dict.fromkeys(name for name in Stack._fields if name.startswith(("token_", "forget_")))
    return Stack(
        embedding=weights.embedding.q,
        embedding_scale=weights.embedding.scale,
        **token,
        **bound("channel_up"),
        **bound("channel_down"),
        **vectors("channel_shift"),
        head=head,
        head_plain=weights.head_cluster.q,
        inverse_width=np.float32(1.0 / weights.width),
    )


def product(q, packed, weight, acc, recheck):  # noqa: ARG001 - used by the compiled version
    """Write the product of `q` int16 ``[R, K]`` and one matrix into `acc` int32; its columns may have room for more.

    In compiled code `packed` is the matrix as its backend reads it. Unless `recheck` is empty, every 128th row is
    computed again from the plain `weight`, and wrong rows are counted; `recheck` int64 ``[3]``: rows since the last
    check, checks so far, wrong rows. In Python `packed` is a :data:`llmzip.network.matmul.Product`, which rechecks
    itself.
    """
    packed(q, acc)


@overload(product)
def _product(q, packed, weight, acc, recheck):  # noqa: ARG001 - the compiled version for all types
    return lambda q, packed, weight, acc, recheck: rechecked_product(q, packed, weight, acc, recheck)


@jit
def rechecked_product(q, packed, weight, acc, recheck):
    """Multiply in compiled code, see :func:`product`."""
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


@inlined
def mix_tokens(i, net, state, work, recheck):
    """Run the token mixer of layer `i`, the gated recurrence (Step 3-5)."""
    x, q, s, scratch = work.x, work.q, work.s, work.scratch
    kernels.shifted_input(x, net.inverse_width, net.token_shift[i], state.last_token[i], q, s, scratch)
    product(q, net.token_in[i], net.token_in_plain[i], work.acc_in, recheck)
    kernels.recur(work.acc_in, s, net.token_in_scale[i], net.forget_bias[i], state.h[i], q, s, scratch)
    product(q, net.token_out[i], net.token_out_plain[i], work.acc, recheck)
    kernels.add_residual(x, work.acc, s, net.token_out_scale[i])


@inlined
def mix_channels(i, net, state, work, recheck):
    """Run the channel mixer of layer `i`, the squared-ReLU MLP (Step 6-8)."""
    x, q, s = work.x, work.q, work.s
    kernels.shifted_input(x, net.inverse_width, net.channel_shift[i], state.last_channel[i], q, s, work.scratch)
    product(q, net.channel_up[i], net.channel_up_plain[i], work.acc_up, recheck)
    kernels.square(work.acc_up, s, net.channel_up_scale[i], work.q_hidden, s, work.scratch_hidden)
    product(work.q_hidden, net.channel_down[i], net.channel_down_plain[i], work.acc, recheck)
    kernels.add_residual(x, work.acc, s, net.channel_down_scale[i])


@inlined
def run_head(net, work, hidden, scale, recheck):
    """Quantise the final rows and multiply them with the clusters' (Step 9)."""
    q, q_low = work.q, work.q_low
    kernels.final_rows(work.x, net.inverse_width, hidden, scale, q, q_low, work.scratch)
    product(q, net.head, net.head_plain, work.acc_head, recheck)
    product(q_low, net.head, net.head_plain, work.acc_low, recheck)
    kernels.join(work.acc_head, work.acc_low)


@jit
def forward(ids, net, state, work, hidden, scale, recheck):
    """Run inputs int32 ``[T * B]`` in time order through the network and the head's first product (Step 1-9).

    Writes `hidden` int16 ``[T * B, d]``, `scale` float32 ``[T * B]``, `work.acc_head`; updates `state`.
    """
    kernels.embed(ids, net.embedding, net.embedding_scale, work.x)
    for i in range(len(net.channel_shift)):
        mix_tokens(i, net, state, work, recheck)
        mix_channels(i, net, state, work, recheck)
    run_head(net, work, hidden, scale, recheck)
