"""The articles of a MediaWiki dump, such as Wikipedia publishes: ``enwiki-latest-pages-articles.xml.bz2``.

An article is a page of namespace 0 that is no redirect; of several revisions the last counts. Its wikitext stays as
it is: markup is what a compressor of such text meets.

The dump is parsed as a stream, a page in memory at most. Nothing in it can expand: entities are declared in a document
type, which stands before the root, and a file is a dump only if nothing but an XML declaration does. Expat's limit on
amplification stands behind that.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO
from xml.parsers import expat

from llmzip.training.records import LONGEST

DUMP = re.compile(rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?<mediawiki[\s>]")
BLOCK = 1 << 16


def is_dump(head: bytes) -> bool:
    """Return whether an XML file that begins like this is a dump."""
    return DUMP.match(head) is not None


class _Pages:
    """Collects the articles from the events of the parser."""

    def __init__(self, left_out: Counter[str]):
        self.articles: list[bytes] = []
        self._left_out = left_out
        self._fields: dict[str, str] = {}  # of the page so far
        self._text: list[str] = []
        self._length = 0
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.buffer_size = BLOCK
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end

    def feed(self, block: bytes) -> None:
        self._parser.Parse(block, False)

    def close(self) -> None:
        try:
            self._parser.Parse(b"", True)
        except expat.ExpatError as error:
            raise EOFError from error

    def _start(self, tag: str, _: dict[str, str]) -> None:
        if tag == "page":
            self._fields = {}
        elif tag in ("ns", "text"):
            self._text, self._length = [], 0
            self._parser.CharacterDataHandler = self._data
        elif tag == "redirect":
            self._fields[tag] = tag

    def _data(self, text: str) -> None:
        self._text.append(text)
        self._length += len(text)
        if self._length > LONGEST:
            raise ValueError(f"a page has more than {LONGEST} characters")

    def _end(self, tag: str) -> None:
        if tag in ("ns", "text"):
            self._parser.CharacterDataHandler = None
            self._fields[tag] = "".join(self._text)
        elif tag == "page":
            if self._fields.get("ns") != "0":
                self._left_out["pages outside namespace 0"] += 1
            elif "redirect" in self._fields:
                self._left_out["redirects"] += 1
            elif text := self._fields.get("text"):
                self.articles.append(text.encode())
            else:
                self._left_out["empty pages"] += 1


def articles(file: BinaryIO, left_out: Counter[str]) -> Iterator[bytes]:
    """Yield the wikitext of each article; raises EOFError, ValueError and ExpatError for what is no whole dump.

    `left_out` counts the other pages.
    """
    pages = _Pages(left_out)
    while block := file.read(BLOCK):
        pages.feed(block)
        yield from pages.articles
        pages.articles.clear()
    pages.close()
