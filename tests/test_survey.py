"""The survey of a corpus: which files and documents are trained on, which are held out."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pytest
from texts import words

from llmzip.errors import FileError
from llmzip.training.survey import survey


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def surveyed(folder: Path, seed: int = 1) -> tuple[list[bytes], dict[str, list[bytes]]]:
    found = survey([folder], seed)
    return [b"".join(parts) for parts in found.training_texts()], found.heldout_texts()


def test_whole_documents_are_held_out_of_many(tmp_path: Path) -> None:
    texts = [f"document {i}\n".encode() + words(300, i) for i in range(40)]
    training, heldout = surveyed(write(tmp_path, {"a.txt": b"\x1e\n".join(texts)}))
    held = heldout["a"]
    assert sorted(training + held) == sorted(texts)
    assert 1 <= len(held) <= 3
    assert surveyed(tmp_path)[1] == heldout
    assert surveyed(tmp_path, seed=2)[1] != heldout


def test_ends_are_held_out_of_few_documents(tmp_path: Path) -> None:
    texts = {"x/a.txt": words(3000, 1), "x/b.txt": words(2000, 2), "y_1.txt": words(1000, 3)}
    training, heldout = surveyed(write(tmp_path, texts))
    assert list(heldout) == ["x", "y"]
    for whole, start, end in zip(texts.values(), training, [*heldout["x"], *heldout["y"]], strict=True):
        assert start + end == whole
        assert 0.04 < len(end) / len(whole) < 0.06


def test_own_output_and_binary_files_are_no_corpus(tmp_path: Path) -> None:
    files = {"a.txt": words(9000), "m.train/metrics.jsonl": b"{}", "m.md": b"# Model", "photo": b"\x89PNG\0"}
    write(tmp_path, files)
    found = survey([tmp_path], 1, without=[tmp_path / "m.train", tmp_path / "m.md"])
    assert [path.name for path in found.files] == ["a.txt"]
    assert found.tally.left_out == {"binary files": 1}


def test_file_that_grows_during_training_is_what_it_was(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": words(3000, 1), "b.txt": words(3000, 2)})
    found = survey([tmp_path], 1)
    before = [b"".join(parts) for parts in found.training_texts()]
    with (tmp_path / "a.txt").open("ab") as file:
        file.write(b"more\n\x1e\nanother document")
    assert [b"".join(parts) for parts in found.training_texts()] == before


def test_survey_refuses_a_missing_path(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file") as caught:
        survey([tmp_path / "nosuch"], 1)
    assert caught.value.filename == str(tmp_path / "nosuch")


def test_files_that_cannot_be_read_are_skipped_counted_and_named(tmp_path: Path) -> None:
    whole = gzip.compress(words(9000, 1))
    files = {"a.txt": words(9000), "b.gz": whole, "c.gz": whole[:-5], "d.jsonl": b'{"id": 1}\n', "e.jpg": b"\0"}
    found = survey([write(tmp_path, files)], 1, field="text")
    assert [path.name for path in found.files] == ["a.txt", "b.gz"]
    assert found.tally.kinds == {"text": 2}
    assert found.tally.left_out == {"files that cannot be read": 2, "binary files": 1}
    assert [(fault.filename, str(fault)) for fault in found.warnings()] == [
        (str(tmp_path / "c.gz"), "is cut short (fetch it again); skipped"),
        (str(tmp_path / "d.jsonl"), "has no text in a field text (give one of id with --field); skipped"),
    ]
    survey_line, left_out = found.summary()
    assert survey_line.startswith("survey: 2 files (2 text), 2 documents, ")
    assert left_out == "left out: 1 binary files, 2 files that cannot be read"


def test_of_very_many_files_that_cannot_be_read_some_are_named(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": words(9000)} | {f"{i}.gz": b"x" for i in range(1000)})
    warnings = survey([tmp_path], 1).warnings()
    assert len(warnings) == 21
    assert str(warnings[-1]) == "skipped, as 979 others that cannot be read"


def test_named_files_that_cannot_be_read_are_skipped_among_others_and_refused_alone(tmp_path: Path) -> None:
    good, bad, binary = tmp_path / "a.txt", tmp_path / "b.gz", tmp_path / "c.jpg"
    write(tmp_path, {"a.txt": words(9000), "b.gz": b"x", "c.jpg": b"\0"})
    found = survey([good, bad, binary], 1)
    assert [fault.filename for fault in found.warnings()] == [str(bad), str(binary)]
    for path, message in ((bad, "is damaged"), (binary, "is binary")):
        with pytest.raises(FileError, match=message) as caught:
            survey([path], 1)
        assert caught.value.filename == str(path)
    with pytest.raises(FileError, match=r"^0 bytes of text .* 2 files cannot be read: .*b\.gz is damaged"):
        survey([bad, binary], 1)


def test_what_was_read_of_a_file_that_is_skipped_does_not_count(tmp_path: Path) -> None:
    lines = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in ("one", "")) * 100
    write(tmp_path, {"a.jsonl.gz": gzip.compress(lines * 50)[:-3], "b.jsonl": lines, "c.txt": words(9000)})
    found = survey([tmp_path], 1, field="text")
    assert len(found.sizes) == 101
    assert found.tally.left_out == {"files that cannot be read": 1, "records without text in the field text": 100}


def test_what_json_lines_are_taken_for_is_said(tmp_path: Path) -> None:
    lines = b"".join(json.dumps({"text": f"{i} {words(30, i).decode()}"}).encode() + b"\n" for i in range(200))
    write(tmp_path, {"a.jsonl": lines})
    assert any("--field NAME" in line for line in survey([tmp_path], 1).summary())
    assert not any("--field NAME" in line for line in survey([tmp_path], 1, field="text").summary())


def test_missing_packages_are_an_error_before_anything_is_read(tmp_path: Path, monkeypatch) -> None:
    write(tmp_path, {"a.txt": words(9000), "b.parquet": b"x"})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr("llmzip.training.survey.document_parts", None)
    with pytest.raises(FileError, match=r"llmzip\[corpora\]"):
        survey([tmp_path], 1)
