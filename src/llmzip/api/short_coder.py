"""Payloads of short texts by a model, or by none, as archives of the small form hold them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence

from llmzip.api.frames import byte_coder, token_coder_of
from llmzip.coding.text_coder import TextCoder
from llmzip.container import small
from llmzip.container.small import SmallHeader
from llmzip.errors import ChecksumError, LlmzipError
from llmzip.model import registry

DAMAGED = "the short text is damaged: its data does not decode"


class ShortCoder:
    """The coder of short texts with the model of a name or a file, or with none; for several threads at a time.

    `digest` is what checks are tied to; `number` and `model_id` say in an archive which model it is.
    """

    def __init__(self, name: str):
        self._model = None if name == registry.NONE else registry.load(name)
        self._local = threading.local()
        self.number = registry.number_of(self._model.digest) if self._model else None
        self.model_id = self._model.digest[: small.OTHER_SIZE] if self._model and self.number is None else None
        if self._model:
            self._initial_state, state_digest = registry.initial_state_for_short(self._model)
            self.digest = self._model.digest + state_digest
        else:
            self.digest = byte_coder()[1]

    def _text_coder(self) -> TextCoder | None:
        """Return this thread's coder, None without a model."""
        if self._model and not hasattr(self._local, "coder"):
            self._local.coder = TextCoder(token_coder_of(self._model, 1, "cpu"), self._initial_state)
        return getattr(self._local, "coder", None)

    def encode(self, contents: Sequence[bytes]) -> list[bytes]:
        """Return the payload of each text: the text itself where that is no longer."""
        coded = [i for i, content in enumerate(contents) if content]
        texts, coder = [contents[i] for i in coded], self._text_coder()
        found = coder.encode(texts) if coder else [byte_coder()[0].encode(text) for text in texts]
        payloads = list(contents)
        for i, payload in zip(coded, found, strict=True):
            payloads[i] = contents[i] if payload is None else payload
        return payloads

    def decode(self, sizes: Sequence[int], payloads: Sequence[bytes]) -> list[bytes | None]:
        """Return the text of each payload, None where no encoder made it."""
        contents: list[bytes | None] = [
            payload if len(payload) == size else None for size, payload in zip(sizes, payloads, strict=True)
        ]
        coded = [i for i, size in enumerate(sizes) if 0 < len(payloads[i]) < size]
        coder = self._text_coder()
        if coder:
            found = coder.decode([payloads[i] for i in coded], [sizes[i] for i in coded])
        else:
            found = [_decoded(payloads[i], sizes[i]) for i in coded]
        for i, content in zip(coded, found, strict=True):
            contents[i] = content
        return contents


def _decoded(payload: bytes, size: int) -> bytes | None:
    try:
        return byte_coder()[0].decode(payload, size)
    except LlmzipError:
        return None


@functools.lru_cache(maxsize=2)
def short_coder(name: str) -> ShortCoder:
    """Return the coder with the model of a name or a file, kept for the next call."""
    return ShortCoder(name)


def coder_for(header: SmallHeader, named: str | None) -> ShortCoder:
    """Return the coder of the model that a short text names; `named` is the user's choice, if any."""
    if header.number is None and header.model_id is None:
        return short_coder(registry.NONE)
    return short_coder(registry.locate_short(header.number, header.model_id, named))


def verified(content: bytes | None, digest: bytes, check: bytes) -> bytes:
    """Return the content; raises ChecksumError if there is none or its check is another."""
    if content is None:
        raise ChecksumError(DAMAGED)
    small.verify(content, digest, check)
    return content


def decode_small(data: bytes, named: str | None) -> bytes:
    """Return the text of one archive of the small form; raises LlmzipError."""
    header, check, payload = small.parse(data)
    coder = coder_for(header, named)
    return verified(coder.decode([header.size], [payload])[0], coder.digest, check)
