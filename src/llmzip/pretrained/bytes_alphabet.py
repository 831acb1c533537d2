"""The alphabet in which byte-level BPE vocabularies write bytes as printable characters (Radford et al. 2019)."""

from __future__ import annotations


def _alphabet() -> dict[str, int]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


BYTES = _alphabet()


def to_bytes(token: str) -> bytes:
    """Return the bytes that a token stands for; raises KeyError for a character that is none of the alphabet."""
    return bytes(BYTES[c] for c in token)
