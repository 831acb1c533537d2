"""The survey of a corpus: which files and documents are trained on, which are held out."""

from __future__ import annotations

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
