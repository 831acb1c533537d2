"""The splitting rules of published vocabularies: those of the tokenizers that they were made with."""

from __future__ import annotations

import re
from unicodedata import ucd_3_2_0

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmzip.pretrained.huggingface import NEWER
from llmzip.vocabulary.pretokens import as_bytes
from llmzip.vocabulary.pretokens_gpt2 import LIMIT, SPLITTINGS, pretoken_end, rules

# Characters whose class has not changed since Unicode 3.2, and short texts of those that the rules are about.
CHARACTERS = st.characters(exclude_categories=("Cs",)).filter(lambda c: ucd_3_2_0.category(c) != "Cn")
TEXTS = st.text(st.one_of(CHARACTERS, st.sampled_from(list(" \n\t'strevmlldé狐\u3000\xa0१5½-."))), max_size=40)


def pretokens(data: bytes, splitting: str) -> list[bytes]:
    array, at, found = as_bytes(data), 0, []
    while at < len(data):
        end = int(pretoken_end(array, at, rules(splitting)))
        assert at < end <= len(data)
        found.append(data[at:end])
        at = end
    return found


def expected(text: str, splitting: str) -> list[bytes]:
    """Return what GPT-2's regular expression matches, with the classes of Unicode 3.2."""

    def letter(c: str) -> str:
        kind = ucd_3_2_0.category(c)[0]
        return "L" if kind == "L" else "N" if kind == "N" else "S" if c.isspace() and not "\x1c" <= c <= "\x1f" else "O"

    def pieces(part: str) -> list[bytes]:
        classes = "".join(map(letter, part))
        found, at = [], 0
        while at < len(part):
            short = re.match(r"'(?:s|t|re|ve|m|ll|d)", part[at:])
            if short:
                end = at + short.end()
            else:
                space = part[at] == " " and at + 1 < len(part) and classes[at + 1] != "S"
                run = re.match(r"L+|N+|O+", classes[at + space :])
                if run and (space or classes[at] != "S"):
                    end = at + space + run.end()
                else:
                    blanks = len(re.match(r"S+", classes[at:])[0])
                    end = at + (blanks - 1 if at + blanks < len(part) and blanks > 1 else blanks)
            found.append(part[at:end].encode())
            at = end
        return found

    if splitting == "gpt2":
        return pieces(text)
    # Numbers are cut off first, one character each; what lies between is cut on its own.
    found, start = [], 0
    for i, c in enumerate(text):
        if ucd_3_2_0.category(c)[0] == "N":
            found += [*pieces(text[start:i]), c.encode()]
            start = i + 1
    return found + pieces(text[start:])


@pytest.mark.parametrize("splitting", ["gpt2", "gpt2-digits"])
@given(text=TEXTS)
@example(text="I'll  go,\n\n  he's 12 ' 've'")
@example(text=" \t 5  5\r\n\r\n ")
def test_pretokens_are_those_of_the_regular_expression(splitting: str, text: str) -> None:
    assert pretokens(text.encode(), splitting) == expected(text, splitting)


@pytest.mark.parametrize("splitting", SPLITTINGS)
@given(text=st.text(st.sampled_from(list(" \n\r\t'strevmllSTdé狐\u3000\xa0१5½-.aZ")), max_size=40))
def test_pretokens_are_those_of_the_tokenizers_library(splitting: str, text: str) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    kinds = tokenizers.pre_tokenizers
    steps = [kinds.ByteLevel(add_prefix_space=False, use_regex=splitting.startswith("gpt2"))]
    if splitting == "gpt2-digits":
        steps.insert(0, kinds.Digits(individual_digits=True))
    elif splitting != "gpt2":
        pattern = NEWER.format(r"\p{N}" if splitting == "qwen2" else r"\p{N}{1,3}")
        steps.insert(0, kinds.Split(tokenizers.Regex(pattern), "isolated"))
    spans = [span for _, span in kinds.Sequence(steps).pre_tokenize_str(text)]
    assert pretokens(text.encode(), splitting) == [text[a:b].encode() for a, b in spans]


@pytest.mark.parametrize("splitting", SPLITTINGS)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_cut_without_loss(splitting: str, data: bytes) -> None:
    assert b"".join(pretokens(data, splitting)) == data


@pytest.mark.parametrize("unit", [b"a", b" ", b"\xff", "狐".encode(), b"\n", b"-"])
def test_long_runs_are_cut(unit: bytes) -> None:
    for splitting in SPLITTINGS:
        found = pretokens(unit * 1000, splitting)
        assert max(map(len, found)) <= LIMIT
        assert b"".join(found) == unit * 1000


def test_classes_are_those_of_unicode_3_2_on_every_machine() -> None:
    classes = rules("gpt2").classes
    assert np.bincount(classes).tolist() == [106090, 89957, 536, 25]  # others, letters, numbers, blanks
    assert classes[ord("A")] != classes[ord("1")] != classes[ord(" ")] != classes[ord("-")]
