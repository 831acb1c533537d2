"""Write text by decompressing random bits: see docs/generate.md.

The decoder turns bits into the text that an encoder would have given these bits. When they are random, every
text comes as often as the model says that it should.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator

import numpy as np

from llmzip.coding import range_coder
from llmzip.coding.token_coder import FrameCoder, TokenCoder
from llmzip.model.file import Model
from llmzip.network.heads import AnyPrediction
from llmzip.tools.token_probabilities import Floats, TokenProbabilities
from llmzip.vocabulary.tree import DecisionTree

Decode = Callable[[AnyPrediction], int]  # the next token, from what the network predicts


def random_bits(size: int, seed: int | None) -> bytes:
    """Return `size` random bytes, always the same ones for a seed."""
    if seed is None:
        return os.urandom(size)
    return hashlib.shake_256(f"llmzip generate {seed}".encode()).digest(size)


def generate(
    model: Model,
    prompt: bytes,
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    seed: int | None = None,
    mixed: bool = False,
) -> Iterator[bytes]:
    """Continue `prompt`: yield tokens until there are `length` bytes, the last one cut.

    Args:
        model: the model.
        prompt: text to go on from, or none.
        length: bytes to write.
        temperature: below 1 the distribution of the language model is sharpened, above 1 flattened.
        top_k: use only the `top_k` likeliest tokens; 0 for all.
        seed: what the random bits are made of; None for fresh random bits.
        mixed: decode exactly as for archives, with what the text itself has shown; without temperature and top_k.
    """
    token_coder = TokenCoder(model)
    session = token_coder.session(1)
    # A decision takes two bytes at most, and the decoder is four bytes ahead.
    payload = np.frombuffer(random_bits(2 * token_coder.tree.height * length + 8, seed), np.uint8).copy()
    tokens = token_coder.tokenizer.encode(prompt).tolist()
    prediction = session.run(np.array([[token_coder.bos]], np.int32))
    if mixed:
        frame = token_coder.begin_frame([len(prompt) + length + int(token_coder.lengths.max())])
        state, scrap = range_coder.new_encoder(), np.empty(2 * token_coder.tree.height * (len(tokens) + 1), np.uint8)
    for token in tokens:
        if mixed:  # encoded, so that the mixer learns it; the code is not needed
            frame.encode(np.array([[token]], np.int32), prediction, state, scrap)
        prediction = session.run(np.array([[token]], np.int32))
    decode = _as_for_archives(frame, payload) if mixed else _by_model(token_coder, payload, temperature, top_k)
    while length > 0:
        token = decode(prediction)
        piece = model.tokenizer.tokens[token][:length]
        length -= len(piece)
        yield piece
        prediction = session.run(np.array([[token]], np.int32))


def _as_for_archives(frame: FrameCoder, payload: np.ndarray) -> Decode:
    """Return the decoder of archives."""
    state, out = range_coder.new_decoder(payload), np.empty(1, np.int32)

    def decode(prediction: AnyPrediction) -> int:
        frame.decode(slice(0, 1), prediction, state, payload, out)
        return int(out[0])

    return decode


def _by_model(token_coder: TokenCoder, payload: np.ndarray, temperature: float, top_k: int) -> Decode:
    """Return a decoder that goes the same way by the language model's probabilities alone."""
    state, probabilities = range_coder.new_decoder(payload), TokenProbabilities(token_coder)
    tree = DecisionTree.build(token_coder.tokenizer.tokens)  # with ranges and bits, which the token_coder's lacks

    def decode(prediction: AnyPrediction) -> int:
        below = _sums(probabilities.of(prediction, temperature=temperature)[0, 0], top_k)
        node = 0
        while node >= 0:
            low, middle, high = below[tree.lo[node]], below[tree.mid[node]], below[tree.hi[node]]
            if low < middle < high:
                share = int((high - middle) / (high - low) * 65536)
                share = min(max(share, 1), 65535)
                bit = int(range_coder.decode_bit(state, payload, share))
            else:
                bit = int(middle == low)  # nothing is left on the other side
            node = int(tree.right[node] if bit else tree.left[node])
        return ~node

    return decode


def _sums(row: Floats, top_k: int) -> Floats:
    """Return the running sums of the `top_k` largest probabilities, of all if it is 0."""
    if 0 < top_k < len(row):
        row = np.where(row >= np.partition(row, -top_k)[-top_k], row, 0)
    return np.concatenate([[0.0], np.cumsum(row)])
