"""Short texts, many at a time: messages, records, rows of a table. Each becomes an archive of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from llmzip.api.buffers import byte_view
from llmzip.api.short_coder import coder_for, short_coder, verified
from llmzip.api.stream import compress, decompress
from llmzip.container import small
from llmzip.container.format import START
from llmzip.container.small import CHECK_SIZES, MOST_BYTES, SmallHeader
from llmzip.model import registry
from llmzip.threads import in_order, usable_cores

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

Text: TypeAlias = "ReadableBuffer | str"
ModelName: TypeAlias = tuple[int | None, bytes | None] | None  # number and id in the archive; None if it has neither
BATCH = 256  # texts that a thread gets at a time


class Codec:
    """Compress and decompress short texts, each on its own; for repeated use, from any thread.

    Texts over 4,096 bytes become ordinary archives. No byte depends on the texts that are compressed together.

    Args:
        model: a model's name or file, or "none" for no language model; None for the default model.
        check: bytes of the check of each text: 0, 1, 2 or 4.
        bare: leave out what names the model and the check, for callers who decompress with such a Codec again.
        threads: that work at the same time, 0 for one per core.
    """

    def __init__(self, model: str | None = None, *, check: int = 2, bare: bool = False, threads: int = 0):
        if check not in CHECK_SIZES:
            raise ValueError(f"a check has 0, 1, 2 or 4 bytes, not {check}")
        self.model, self.check, self.bare = model, check, bare
        self._threads = threads or usable_cores()
        self._coder = short_coder(None if model == registry.NONE else registry.load(model or registry.DEFAULT))

    def encode(self, text: Text) -> bytes:
        """Return the archive of a text; one of type str is encoded as UTF-8."""
        return self.encode_many([text])[0]

    def decode(self, archive: ReadableBuffer) -> bytes:
        """Return the text of an archive; raises LlmzipError."""
        return self.decode_many([archive])[0]

    def encode_many(self, texts: Iterable[Text]) -> list[bytes]:
        """Return the archives of texts."""
        return list(self.iter_encode(texts))

    def decode_many(self, archives: Iterable[ReadableBuffer]) -> list[bytes]:
        """Return the texts of archives; raises LlmzipError for the first that is damaged."""
        return list(self.iter_decode(archives))

    def iter_encode(self, texts: Iterable[Text]) -> Iterator[bytes]:
        """Yield the archives of texts in their order; some hundred texts are in memory at a time."""
        return self._map(self._encode, texts)

    def iter_decode(self, archives: Iterable[ReadableBuffer]) -> Iterator[bytes]:
        """Yield the texts of archives in their order; raises LlmzipError at one that is damaged."""
        return self._map(self._decode, archives)

    def _map(self, function: Callable[[list[bytes]], Sequence[bytes]], items: Iterable[Text]) -> Iterator[bytes]:
        source = iter(items)
        batches = iter(lambda: [_bytes(item) for item in islice(source, BATCH)], [])
        for results in in_order((partial(function, batch) for batch in batches), self._threads):
            yield from results

    def _encode(self, contents: list[bytes]) -> list[bytes]:
        short = [content for content in contents if len(content) <= MOST_BYTES]
        payloads = iter(self._coder.encode(short))
        return [
            self._pack(content, next(payloads)) if len(content) <= MOST_BYTES else self._long(content)
            for content in contents
        ]

    def _long(self, content: bytes) -> bytes:
        return compress(content, model=self.model, threads=1)  # other batches have the other threads

    def _pack(self, content: bytes, payload: bytes) -> bytes:
        coder = self._coder
        header = SmallHeader(len(content), self.check, coder.number, coder.model_id)
        return header.pack(bare=self.bare) + small.check_of(content, coder.digest, self.check) + payload

    def _decode(self, archives: list[bytes]) -> list[bytes]:
        # All that name the same model are decoded together.
        contents = [b""] * len(archives)
        groups: dict[ModelName, list[tuple[int, int, bytes, bytes]]] = {}
        for i, data in enumerate(archives):
            if data.startswith(START):
                contents[i] = decompress(data, model=self.model, threads=1)
            elif self.bare:
                groups.setdefault(None, []).append((i, *small.parse_bare(data, self.check)))
            else:
                header, check, payload = small.parse(data)
                group = groups.setdefault((header.number, header.model_id), [])
                group.append((i, header.size, check, payload))
        for name, members in groups.items():
            coder = self._coder if name is None else coder_for(*name, self.model)
            found = coder.decode([size for _, size, _, _ in members], [payload for _, _, _, payload in members])
            for (i, _, check, _), content in zip(members, found, strict=True):
                contents[i] = verified(content, coder.digest, check)
        return contents


def _bytes(text: Text) -> bytes:
    return text.encode() if isinstance(text, str) else bytes(byte_view(text))


def compress_many(texts: Iterable[Text], *, model: str | None = None, check: int = 2, threads: int = 0) -> list[bytes]:
    """Return each text as a small archive of its own; arguments as for :class:`Codec`.

    The texts may be a list, a pandas Series, an Arrow column or any other iterable of str or bytes.
    """
    return Codec(model, check=check, threads=threads).encode_many(texts)


def decompress_many(archives: Iterable[ReadableBuffer], *, model: str | None = None, threads: int = 0) -> list[bytes]:
    """Return the content of each archive; raises LlmzipError for the first that is damaged.

    The model is found by what each archive says, unless it is given.
    """
    return Codec(model, threads=threads).decode_many(archives)
