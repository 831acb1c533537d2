"""The script that looks for evaluation text in a corpus."""

import random
import string
import sys

import numpy as np
import pytest
from helpers import script

check = script("check_contamination")


def letters(count, seed):
    """Return text that shares no shingle with that of another seed."""
    return "".join(random.Random(seed).choices(string.ascii_lowercase, k=count)).encode()


PASSAGE = letters(200, "passage")
EVALUATED = {"first": letters(3000, 1) + PASSAGE[:100], "second": PASSAGE[100:] + letters(3000, 2)}


@pytest.fixture
def rows(tmp_path, monkeypatch, capsys):
    """Return a function of a corpus's files that gives the exit code and the cells of each evaluation file's row."""

    def run(evaluated=EVALUATED, check=check, **corpus):
        for folder, files in (("evaluated", evaluated), ("corpus", corpus)):
            (tmp_path / folder).mkdir()
            for name, text in files.items():
                (tmp_path / folder / name).write_bytes(text)
        monkeypatch.setattr(sys, "argv", ["", *(str(tmp_path / folder) for folder in ("corpus", "evaluated"))])
        with pytest.raises(SystemExit) as left:
            check.main()
        cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:]]
        return left.value.code, {name: rest for name, *rest in cells}

    return run


@pytest.mark.parametrize("before", [0, 1, 65536 - 20, 1 << 20])
@pytest.mark.parametrize("after", [0, 1, 70000])
def test_a_passage_of_48_bytes_is_found_wherever_it_is(rows, before, after):
    passage = EVALUATED["first"][1000:1048]
    code, found = rows(clean=letters(999, 3), copy=letters(before, 4).upper() + passage + letters(after, 5).upper())
    assert found["first"] == ["3053", "1 (0.033 %)", "0", "48", "copy", f"`{passage.decode()}`"]
    assert found["second"] == ["3053", "0", "0", "", "", ""]
    assert code == 0  # too short for more than chance


def test_passages_of_47_bytes_are_not_found(rows):
    pieces = [EVALUATED["first"][at : at + 47] for at in range(0, 3000, 47)]
    code, found = rows(copy=b"#".join(pieces))
    assert (code, found["first"][1]) == (0, "0")


def test_what_only_two_evaluation_files_in_a_row_hold_is_in_none(rows):
    code, found = rows(copy=PASSAGE[60:140])
    assert (code, found["first"][1], found["second"][1]) == (0, "0", "0")


def test_the_longest_passage_is_measured_from_its_beginning_to_its_end(rows):
    text = EVALUATED["second"]
    code, found = rows(a=text[300:360], b=b"?" + text[500:700] + b"?" + text[900:1000], c=text[1200:1300])
    assert code == 1
    assert found["second"][1:5] == ["272 (8.909 %)", "0", "200", "b"]
    assert found["second"][5] == f"`{text[500:560].decode()}`"


def test_a_passage_ends_where_its_evaluation_file_ends(rows):
    code, found = rows(copy=PASSAGE)
    assert [found[name][3] for name in ("first", "second")] == ["100", "100"]
    assert code == 0


def test_the_longest_of_several_passages_that_begin_alike_is_found(rows):
    begin = letters(60, 6)
    evaluated = {"only": begin + b"one" + begin + b"two" + letters(100, 7)}
    _, found = rows(evaluated, copy=begin + b"two" + letters(100, 7)[:50])
    assert found["only"][3] == "113"


def test_trivial_shingles_are_counted_apart(rows):
    seven, eight = b"abcdefg" * 10, b"hijklmno" * 10
    evaluated = {"only": letters(500, 8) + b"\n" + b"-" * 100 + b"\n" + seven + letters(500, 9) + eight}
    _, found = rows(evaluated, copy=b"-" * 300 + seven + b"!" + eight)
    trivial = (100 - 47) + (70 - 47)
    assert found["only"][1:4] == [f"{trivial + 33} ({100 * (trivial + 33) / 1205:.3f} %)", str(trivial), "80"]


def test_a_passage_that_follows_a_ruler_begins_where_it_is_no_longer_trivial(rows):
    text = b"-" * 100 + string.ascii_lowercase.encode() + letters(200, 10)
    code, found = rows({"only": text}, copy=text[:230])
    assert code == 1
    assert found["only"][3:] == [str(230 - 59), "copy", f"`{text[59:119].decode()}`"]


def test_an_equal_hash_is_not_enough(rows):
    sums = script("check_contamination")
    sums.BASE = sums.LEAVING = np.uint64(1)  # the order of bytes does not change the hash
    passage = letters(48, 11)
    _, found = rows({"only": passage}, sums, copy=passage[::-1])
    assert found["only"][1] == "0"
    with pytest.raises(SystemExit, match="same hash"):
        sums.Shingles.of([np.frombuffer(text, np.uint8) for text in (passage, passage[::-1])])
