"""Payloads of short texts by a model, or by none, as archives of the small form hold them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from llmzip.api.frames import TOO_LARGE, byte_coder, token_coder_of
from llmzip.container import small
from llmzip.errors import ChecksumError, LimitError, LlmzipError
from llmzip.model import registry

if TYPE_CHECKING:
    from llmzip.coding.text_coder import TextCoder
    from llmzip.model.file import Model

MOST_KEPT = 2  # coders
DAMAGED = "the short text is damaged: its data does not decode"

_kept: dict[bytes, ShortCoder] = {}


class ShortCoder:
    """The coder of short texts with a model, or with none; for several threads at a time.

    `digest` is what checks are tied to; `number` and `model_id` say in an archive which model it is.
    """

    def __init__(self, model: Model | None):
        self.number: int | None = None
        self.model_id: bytes | None = None
        self._new_coder: Callable[[], TextCoder] | None = None
        self._free: list[TextCoder] = []  # one for each thread that has been at work at the same time
        if model is None:
            self.digest = byte_coder()[1]
            return
        initial_state, state_digest = registry.initial_state_for_short(model)
        self.digest = model.digest + state_digest
        self.number = registry.number_of(model.digest)
        if self.number is None:
            self.model_id = model.digest[: small.OTHER_SIZE]
        from llmzip.coding.text_coder import TextCoder  # kernels that other archives do not need

        self._new_coder = partial(TextCoder, token_coder_of(model, 1, "cpu"), initial_state)

    @contextmanager
    def _text_coder(self, new: Callable[[], TextCoder]) -> Iterator[TextCoder]:
        """Lend a coder to the calling thread."""
        try:
            coder = self._free.pop()
        except IndexError:
            coder = new()
        try:
            yield coder
        finally:
            self._free.append(coder)

    def encode(self, contents: Sequence[bytes]) -> list[bytes]:
        """Return the payload of each text: the text itself where that is no longer."""
        coded = [i for i, content in enumerate(contents) if content]
        texts = [contents[i] for i in coded]
        if self._new_coder:
            with self._text_coder(self._new_coder) as coder:
                found = coder.encode(texts)
        else:
            found = [byte_coder()[0].encode(text) for text in texts]
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
        if self._new_coder:
            with self._text_coder(self._new_coder) as coder:
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


def short_coder(model: Model | None) -> ShortCoder:
    """Return the coder with a model, or with none, kept for the next call."""
    key = model.digest if model else b""
    coder = _kept.get(key)
    if coder is None:
        if len(_kept) >= MOST_KEPT:
            _kept.clear()
        coder = _kept[key] = ShortCoder(model)
    return coder


def coder_for(number: int | None, model_id: bytes | None, named: str | None) -> ShortCoder:
    """Return the coder of the model that a short text names, if any; `named` is the user's choice, if any."""
    if number is None and model_id is None:
        return short_coder(None)
    return short_coder(registry.for_archive(number, model_id, named))


def verified(content: bytes | None, digest: bytes, check: bytes) -> bytes:
    """Return the content; raises ChecksumError if there is none or its check is another."""
    if content is None:
        raise ChecksumError(DAMAGED)
    small.verify(content, digest, check)
    return content


def decode_small(data: bytes, named: str | None, max_size: int | None = None) -> bytes:
    """Return the text of one archive of the small form; raises LlmzipError, also if it is longer than `max_size`."""
    header, check, payload = small.parse(data)
    if max_size is not None and header.size > max_size:
        raise LimitError(TOO_LARGE.format(max_size))
    coder = coder_for(header.number, header.model_id, named)
    return verified(coder.decode([header.size], [payload])[0], coder.digest, check)
