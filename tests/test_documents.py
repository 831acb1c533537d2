"""The documents of files of every kind that people have corpora in."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from texts import words

from llmzip.errors import FileError
from llmzip.training.compressed import zstd_module
from llmzip.training.documents import (
    BinaryFileError,
    Tally,
    document_parts,
    documents,
    domain_of,
    is_plain,
    readable_texts,
)
from llmzip.training.gutenberg import HEADER_BYTES

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: zstd_module(Path("test")).compress(data),
}


@pytest.fixture(params=COMPRESSORS)
def suffix(request) -> str:
    if request.param == "zst" and sys.version_info < (3, 14):
        pytest.importorskip("backports.zstd")
    return request.param


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def fault(path: Path, field: str | None = None) -> str:
    with pytest.raises(FileError) as caught:
        list(documents(path, field))
    assert caught.value.filename == str(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Compressed files


def test_compressed_text_is_the_text(suffix: str, tmp_path: Path) -> None:
    path = put(tmp_path / f"notes_1.TXT.{suffix.upper()}", COMPRESSORS[suffix](b"one\n\x1e\ntwo"))
    assert list(documents(path)) == [b"one\n", b"two"]
    assert domain_of(path) == "notes"
    assert not is_plain(path)


def test_compressed_files_of_several_streams_are_read_to_the_end(suffix: str, tmp_path: Path) -> None:
    path = put(tmp_path / f"a.{suffix}", COMPRESSORS[suffix](b"one\n") + COMPRESSORS[suffix](b"two\n"))
    assert list(documents(path)) == [b"one\ntwo\n"]


def test_compressed_files_that_are_damaged_or_cut_short(suffix: str, tmp_path: Path) -> None:
    data = COMPRESSORS[suffix](words(20_000))
    assert fault(put(tmp_path / f"a.{suffix}", data[:-9])) == "is cut short (fetch it again)"
    broken = bytearray(data)
    broken[len(data) // 2] ^= 0x55
    assert fault(put(tmp_path / f"b.{suffix}", bytes(broken))).startswith("is damaged: ")
    assert fault(put(tmp_path / f"c.{suffix}", b"something else")).startswith("is damaged: ")


def test_binary_files_are_known_by_what_is_in_them(suffix: str, tmp_path: Path) -> None:
    for path in (put(tmp_path / "a.txt", b"x\0"), put(tmp_path / f"a.tar.{suffix}", COMPRESSORS[suffix](b"x\0"))):
        with pytest.raises(BinaryFileError, match="is binary"):
            list(documents(path))


# Records


def lines(*records: object) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def test_json_lines_are_text_unless_a_field_is_asked_for(tmp_path: Path) -> None:
    data = lines({"text": "one", "id": 1}, {"text": "zwei ä\n"})
    path = put(tmp_path / "a.jsonl", data)
    assert list(documents(path)) == [data]
    assert list(documents(path, "text")) == [b"one", "zwei ä\n".encode()]
    assert list(documents(put(tmp_path / "a.ndjson.gz", gzip.compress(data)), "text")) == [b"one", "zwei ä\n".encode()]


def test_records_without_text_and_damaged_ones_are_counted(tmp_path: Path) -> None:
    data = lines({"text": "one"}, {"text": ""}, {"text": None}, {"id": 1}, [], 7)
    data += b'\n{"text": "half\n' + b"[" * 100_000 + b"\n\xff\n" + lines({"text": "\ud800!"})
    tally = Tally()
    assert list(documents(put(tmp_path / "a.jsonl", data), "text", tally)) == [b"one", b"?!"]
    assert tally.kinds == {"JSON Lines": 1}
    assert tally.left_out == {"records without text in the field text": 5, "damaged records": 3}


def test_json_lines_that_have_no_such_field_say_what_they_have(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", lines({"id": 1, "content": "x"}, {"id": 2}))
    assert fault(path, "text") == "has no text in a field text (give one of id, content with --field)"
    assert "are its lines JSON objects?" in fault(put(tmp_path / "b.jsonl", b"plain\n"), "text")


def test_lines_longer_than_memory_should_hold_are_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("llmzip.training.records.LONGEST", 100)
    path = put(tmp_path / "a.jsonl", lines({"text": "x" * 200}))
    assert fault(path, "text") == "is damaged: a line has more than 100 bytes"


def test_rows_of_parquet_files_are_documents(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    texts = [f"text {i} ä" for i in range(300)]
    table = pyarrow.table({"id": range(302), "text": [*texts, None, ""], "code": pyarrow.array([b"x\xff"] * 302)})
    path = tmp_path / "a.parquet"
    parquet.write_table(table, path, row_group_size=100)
    tally = Tally()
    assert list(documents(path, tally=tally)) == [text.encode() for text in texts]
    assert tally == Tally({"Parquet": 1}, {"records without text in the field text": 2})
    assert list(documents(path, "code")) == [b"x\xff"] * 302
    assert fault(path, "nosuch") == "has no text in a field nosuch (give one of id, text, code with --field)"
    assert fault(path, "id") == "has no text in a field id (give one of id, text, code with --field)"
    data = path.read_bytes()
    assert fault(put(tmp_path / "b.parquet", data[:-20])).startswith("is damaged: ")
    assert fault(put(tmp_path / "c.parquet", b"PAR1" + bytes(len(data) // 2) + data[4 + len(data) // 2 :])).startswith(
        "is damaged: "
    )
    parquet.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    broken = path.read_bytes().replace(b"text 100", b"test 100", 1)
    assert fault(put(tmp_path / "e.parquet", broken)).startswith("is damaged: ")
    with pytest.raises(BinaryFileError):  # which nobody makes
        list(documents(put(tmp_path / "d.parquet.gz", gzip.compress(data))))


@pytest.mark.parametrize(
    ("name", "package", "said"),
    [
        ("a.parquet", "pyarrow", "is a Parquet file, and pyarrow"),
        ("a.zst", "backports.zstd", "is compressed with zstd"),
    ],
)
def test_packages_that_are_missing_are_named(name: str, package: str, said: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    text = fault(put(tmp_path / name, b"x"))
    assert text.startswith(said)
    assert text.endswith('is missing (pip install "llmzip[corpora]")')


# Dumps of MediaWiki

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="en">
  <siteinfo><sitename>Wikipedia</sitename><namespaces><namespace key="0" /></namespaces></siteinfo>
"""


def page(text: str, namespace: int = 0, extra: str = "") -> str:
    return f"""  <page>
    <title>Title</title><ns>{namespace}</ns><id>7</id>{extra}
    <revision><id>1</id><text bytes="9" xml:space="preserve">{text}</text></revision>
  </page>
"""


PAGES = (
    page("'''One''' &amp; [[two]] &lt;ref/&gt;\nä")
    + page("#REDIRECT [[One]]", extra='<redirect title="One" />')
    + page("{{talk}}", 1)
    + page("")
    + page("old", extra="<revision><text>older</text></revision>")
)
ARTICLES = ["'''One''' & [[two]] <ref/>\nä".encode(), b"old"]


@pytest.mark.parametrize("declaration", ["", '<?xml version="1.0" encoding="utf-8"?>\n'])
def test_articles_of_dumps_are_documents(declaration: str, tmp_path: Path) -> None:
    dump = (declaration + HEAD + PAGES + "</mediawiki>").encode()
    for path in (put(tmp_path / "w.xml", dump), put(tmp_path / "wiki.xml.bz2", bz2.compress(dump))):
        tally = Tally()
        assert list(documents(path, tally=tally)) == ARTICLES
        assert tally.left_out == {"redirects": 1, "pages outside namespace 0": 1, "empty pages": 1}
        assert tally.kinds == {"MediaWiki dump": 1}


def test_dumps_that_are_cut_short_or_no_xml(tmp_path: Path) -> None:
    whole = (HEAD + page("word " * 50_000) * 3 + "</mediawiki>").encode()
    assert fault(put(tmp_path / "a.xml", whole[:-20])) == "is cut short (fetch it again)"
    assert fault(put(tmp_path / "b.xml", whole[:300_000])) == "is cut short (fetch it again)"
    wrong = whole.replace(b"</text>", b"</texts>")
    assert fault(put(tmp_path / "c.xml", wrong)).startswith("is damaged: mismatched tag")
    assert fault(put(tmp_path / "d.xml.bz2", bz2.compress(whole)[:-50])) == "is cut short (fetch it again)"


def test_entities_cannot_be_declared(tmp_path: Path) -> None:
    dump = HEAD + page("&a;") + "</mediawiki>"
    path = put(tmp_path / "a.xml", dump.encode())
    assert fault(path).startswith("is damaged: undefined entity")
    bomb = '<!DOCTYPE mediawiki [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;">]>' + dump
    assert list(documents(put(path, bomb.encode()))) == [bomb.encode()]  # no dump: text
    bomb = "<mediawiki " + " " * 9000 + ">" + bomb
    assert fault(put(path, bomb.encode())).startswith("is damaged: ")


def test_pages_longer_than_memory_should_hold_are_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("llmzip.training.mediawiki.LONGEST", 100_000)
    path = put(tmp_path / "a.xml", (HEAD + page("x" * 200_000) + "</mediawiki>").encode())
    assert fault(path) == "is damaged: a page has more than 100000 characters"


def test_other_xml_is_text(tmp_path: Path) -> None:
    data = b'<?xml version="1.0"?><!DOCTYPE a><a>text about <mediawiki></a>'
    assert list(documents(put(tmp_path / "a.xml", data))) == [data]


# Project Gutenberg

NEW = b"""\xef\xbb\xbfThe Project Gutenberg eBook of A Book

Title: A Book
*** START OF THE PROJECT GUTENBERG EBOOK A BOOK WITH A TITLE
THAT TAKES TWO LINES ***
"""
OLD = b"""**The Project Gutenberg Etext of A Book**
***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***
*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*
"""
BODY = b"\nChapter 1\n*** stars\nProject Gutenberg is named in the text.\n"
NEW_END = b"*** END OF THE PROJECT GUTENBERG EBOOK A BOOK ***\nSection 1. General Terms of Use\n"
OLD_END = b"End of the Project Gutenberg EBook of A Book\n" + NEW_END


@pytest.mark.parametrize("header", [NEW, OLD, NEW.replace(b"\n", b"\r\n"), NEW.replace(b"*** START", b"***START")])
@pytest.mark.parametrize("footer", [NEW_END, OLD_END, b""])
def test_books_lose_header_and_licence(header: bytes, footer: bytes, tmp_path: Path) -> None:
    tally = Tally()
    path = put(tmp_path / "pg1.txt", header + BODY + footer)
    assert list(documents(path, tally=tally)) == [BODY]
    assert tally.left_out == {"headers and footers of Project Gutenberg": 1}


def test_books_in_one_file_lose_theirs_each(tmp_path: Path) -> None:
    path = put(tmp_path / "books.txt", b"\x1e\n".join([NEW + BODY + NEW_END, b"no book\n", OLD + BODY + OLD_END]))
    tally = Tally()
    assert list(documents(path, tally=tally)) == [BODY, b"no book\n", BODY]
    assert sum(tally.left_out.values()) == 2


@pytest.mark.parametrize("rest", [b"x\n" * 20, b"x\n" * HEADER_BYTES + NEW])
def test_what_only_names_project_gutenberg_stays(rest: bytes, tmp_path: Path) -> None:
    data = b"About Project Gutenberg\n" + rest + NEW_END
    tally = Tally()
    assert list(documents(put(tmp_path / "a.txt", data), tally=tally)) == [data]
    assert not tally.left_out


# All of them


def test_large_files_are_read_a_record_at_a_time(tmp_path: Path) -> None:
    whole = put(tmp_path / "a.xml.bz2", bz2.compress((HEAD + page("word " * 1000) * 600 + "</mediawiki>").encode()))
    rows = put(tmp_path / "a.jsonl.gz", gzip.compress(lines(*[{"text": "word " * 1000}] * 600)))
    for path in (whole, rows):
        tracemalloc.start()
        try:
            assert sum(len(part) for _, part in document_parts(path, "text")) == 3_000_000
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 1_000_000


def test_readable_texts_warn_of_what_is_skipped(tmp_path: Path) -> None:
    put(tmp_path / "a.txt", b"one\n\x1e\ntwo\n")
    put(tmp_path / "b.gz", b"")
    put(tmp_path / "c.gz", b"x")
    with pytest.warns(UserWarning, match=r"c\.gz: is .*; skipped"):
        found = dict(readable_texts([tmp_path]))
    assert found == {tmp_path / "a.txt": b"one\ntwo\n", tmp_path / "b.gz": b""}
