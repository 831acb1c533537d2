"""A published model as its file describes it: sizes, vocabulary, float tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmzip.errors import ModelError

Floats = npt.NDArray[np.float32]

MOST = 1 << 16  # of anything that a network has several of
END = "<|endoftext|>"  # the token between the texts that many models were trained on: it starts one, too

ARCHITECTURES = ("llama", "qwen2")  # alike but for the biases of queries, keys and values


@dataclass(frozen=True)
class Source:
    """A published causal language model.

    Attributes:
        title, licence: what its file says of it; "" where nothing.
        width, layers, heads, kv_heads, head_width, hidden: sizes.
        epsilon: of its norms.
        rotary_base: of the positions' frequencies.
        tokens: the byte string of each row of the embedding; None for special tokens.
        ranks: the place of each row's token among the merges.
        start: the row that starts a text.
        splitting: the name of the rule that cuts text before tokens are merged.
        tensor: from a tensor's name (as in Hugging Face's Llama), float32 values; KeyError if there is none.
        sha256: of the file the weights are from, hexadecimal.
        biased: whether queries, keys and values have a bias.
        tied: whether the output layer is the embedding.
    """

    title: str
    licence: str
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    hidden: int
    epsilon: float
    rotary_base: float
    tokens: list[bytes | None]
    ranks: list[int]
    start: int
    splitting: str
    tensor: Callable[[str], Floats]
    sha256: str
    biased: bool = False
    tied: bool = True

    def __post_init__(self) -> None:
        sizes = (self.width, self.layers, self.heads, self.kv_heads, self.head_width, self.hidden)
        if not all(isinstance(size, int) and 0 < size <= MOST for size in sizes):
            raise ModelError(f"its sizes cannot be imported: {sizes}")
        numbers = isinstance(self.epsilon, float) and isinstance(self.rotary_base, float)
        if not numbers or not 0 <= self.epsilon <= 1 or not 1 < self.rotary_base < 2**40:
            raise ModelError(f"its norms' epsilon {self.epsilon} or rotary base {self.rotary_base} cannot be imported")
        if not 0 <= self.start < len(self.tokens):
            raise ModelError(f"the token that starts a text, {self.start}, is none of its {len(self.tokens)}")
