"""Byte-level vocabularies, which write bytes as printable characters (GPT-2, Radford et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def _alphabet() -> dict[str, int]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


BYTES = _alphabet()


def to_bytes(token: str) -> bytes:
    """Return the bytes that a token stands for; raises KeyError for a character that is none of the alphabet."""
    return bytes(BYTES[c] for c in token)


def ranks_of(merges: Iterable[str | Sequence[str]], tokens: Iterable[bytes | None]) -> list[int]:
    """Return each token's place among the merges, two texts each or one with a space between; 0 for single bytes."""
    order: dict[bytes, int] = {}
    for place, merge in enumerate(merges):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        order.setdefault(to_bytes(left) + to_bytes(right), place)
    return [order.get(token, 0) if token else 0 for token in tokens]
