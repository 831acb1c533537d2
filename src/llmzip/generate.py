"""Write text by decompressing random bits: see docs/generate.md.

The decoder turns bits into the text that an encoder would have given these bits. When they are random, every
text comes as often as the model says that it should.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from llmzip import coder
from llmzip.engine import Engine, Walker
from llmzip.exact import Prediction
from llmzip.modelfile import Model


def random_bits(size: int, seed: int | None) -> bytes:
    """Return so many bytes of randomness, always the same ones for a seed."""
    if seed is None:
        return os.urandom(size)
    return hashlib.shake_256(f"llmzip generate {seed}".encode()).digest(size)


def generate(
    model: Model, prompt: bytes, length: int, *, temperature: float = 1.0, seed: int | None = None
) -> Iterator[bytes]:
    """Go on with `prompt`: yield tokens until there are `length` bytes, the last one cut.

    A `temperature` below 1 makes the language model surer of its guesses than it is, above 1 less sure; what the
    text itself has taught is mixed in as always.
    """
    engine = Engine(model)
    longest = int(engine.lengths.max())
    session = engine.session(1)
    walker = Walker(engine, 1, len(prompt) + length + longest)

    def predict(token: int) -> Prediction:
        seen: Prediction = session.run(np.array([[token]], np.int32))
        return replace(seen, scale=(seen.scale / np.float32(temperature)).astype(np.float32))

    # The prompt is encoded, so that the adaptive stage has seen it; nobody needs the code.
    token, state = engine.begin, coder.new_encoder()
    tokens = engine.tokenizer.encode(prompt).tolist()
    per_token = 2 * engine.tree.height  # bytes at most: a decision takes two
    scrap = np.empty(per_token * (len(tokens) + 1), np.uint8)
    for following in tokens:
        walker.encode(np.array([[following]], np.int32), predict(token), state, scrap)
        token = following

    # The decoder is four bytes ahead.
    payload = np.frombuffer(random_bits(per_token * length + 8, seed), np.uint8).copy()
    state, out = coder.new_decoder(payload), np.empty(1, np.int32)
    left = np.array([length + longest], np.int64)
    while length > 0:
        walker.decode(slice(0, 1), left, predict(token), state, payload, out)
        token = int(out[0])
        piece = model.tokenizer.tokens[token][:length]
        length -= len(piece)
        yield piece
