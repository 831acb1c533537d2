import html.parser
import json
import re
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
from texts import noise, words

from llmzip import cli
from llmzip.coding.byte_coder import ByteCoder
from llmzip.coding.token_coder import TokenCoder
from llmzip.model import registry
from llmzip.tools.inspection import Inspection, inspect
from llmzip.tools.inspection_report import html_report, text_report

TEXT = words(400)[:2000]
ODD = "Größe\tund 狐狸 </script><b>&amp;\r\n\0".encode() + b"\xff\xfe" + noise(30)


@pytest.fixture(scope="module")
def plain():
    return ByteCoder(registry.initial_state_for_bytes()[0])


@pytest.fixture(scope="module")
def token_coder(tiny):
    return TokenCoder(tiny)


@pytest.fixture(scope="module")
def found(token_coder, plain) -> Inspection:
    return inspect(token_coder, plain, TEXT)


def test_tokens_cost_what_the_archive_takes(token_coder, plain, found):
    assert b"".join(token.text for token in found.tokens) == TEXT
    coded = token_coder.encode(TEXT, capacity=5000)
    assert found.lane_count == len(coded.lane_bytes)
    assert found.total("bits") / 8 == pytest.approx(len(coded.payload), abs=1)
    assert found.total("context_bits") / 8 == pytest.approx(len(plain.encode(TEXT)), abs=1)


def test_several_lanes_are_put_in_the_order_of_the_text(token_coder, plain):
    data = words(3000)[:9000]
    told = []
    found = inspect(token_coder, plain, data, progress=told.append)
    assert found.lane_count > 1
    assert b"".join(token.text for token in found.tokens) == data
    assert sum(told) == len(data)
    assert found.total("bits") / 8 == pytest.approx(len(token_coder.encode(data, capacity=20_000).payload), abs=1)


def test_what_the_language_model_says(found):
    for token in found.tokens:
        shares = [guess.probability for guess in token.guesses]
        assert shares == sorted(shares, reverse=True)
        assert 0 < sum(shares) <= 1.000001
        for guess in token.guesses:
            if guess.text == token.text:
                assert 2**-token.model_bits == pytest.approx(guess.probability, rel=0.01)


def test_ends_are_a_part_of_the_bits(found):
    assert all(-1e-9 <= token.end_bits <= token.bits + 0.01 for token in found.tokens)
    assert 0 < found.total("end_bits") < found.total("bits") / 2


def test_what_pulled_towards_a_repeat(token_coder, plain):
    sentence = b"A sentence that comes twice, word for word. "
    tokens = inspect(token_coder, plain, sentence + sentence).tokens
    later = [t for t, at in zip(tokens, accumulate(len(t.text) for t in tokens), strict=True) if at > 70]
    assert set(later[0].contributions) == {"constant", "model", "contexts", "matches"}
    assert all(token.contributions["matches"] > 0 for token in later)
    # What the predictors contribute makes the odds, but for the last APMs: cheap tokens have large ones.
    assert all(sum(token.contributions.values()) > 5 for token in later if token.bits < 1)


def test_matches_are_told(token_coder, plain):
    sentence = b"A sentence that comes twice, word for word. "
    found = inspect(token_coder, plain, sentence + b"Between. " + sentence)
    at, told = 0, 0
    for token in found.tokens:
        if token.match_length > 12 and at + len(token.text) < len(sentence) * 2 + 9:
            assert token.match.startswith(token.text) or token.text.startswith(token.match)
            told += 1
        at += len(token.text)
    assert told > 3


def test_the_costliest_passages(token_coder, plain):
    data = b"the the the the the " * 20 + b"QzXjVkW#9!" + b"the the the the the " * 20
    found = inspect(token_coder, plain, data)
    passages = found.costliest(3)
    assert b"QzXjVkW#9!" in passages[0].text
    assert [p.bits for p in passages] == sorted((p.bits for p in passages), reverse=True)
    for passage in passages:
        assert b"".join(token.text for token in found.tokens[passage.first : passage.end]) == passage.text
    spans = sorted((p.first, p.end) for p in passages)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))


class Page(html.parser.HTMLParser):
    """Check that elements are closed in order, and collect what the page holds."""

    def __init__(self):
        super().__init__()
        self.open, self.tokens, self.texts, self.outside = [], [], [], []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.outside += [values[name] for name in ("src", "href") if name in values and values[name] != "#text"]
        if tag not in ("meta", "line", "polyline"):
            self.open.append(tag)
        if tag == "b":
            self.tokens.append("")

    def handle_endtag(self, tag):
        if tag not in ("line", "polyline"):
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_data(self, data):
        if self.open and self.open[-1] == "b":
            self.tokens[-1] += data
        if self.open and self.open[-1] == "script":
            self.texts.append(data)


@pytest.mark.parametrize("text", [TEXT, ODD, b"x", "字".encode() * 50], ids=["words", "odd", "x", "one character"])
def test_the_page_is_sound_whole_and_alone(token_coder, plain, text):
    found = inspect(token_coder, plain, text)
    page = Page()
    page.feed(html_report(found, "<name> & co"))
    page.close()
    assert (page.open, page.outside) == ([], [])
    assert len(page.tokens) == len(found.tokens)
    shown = "".join(page.tokens)
    assert ("↵\n" in shown) == (b"\n" in text)
    rows = json.loads(page.texts[0])
    assert [row[0] for row in rows] == [token.text.decode("utf-8", "backslashreplace") for token in found.tokens]
    assert [row[1] for row in rows] == [round(token.bits, 2) for token in found.tokens]


def test_the_summary(found):
    text = text_report(found, "a.txt")
    assert text.startswith(f"a.txt: 2000 bytes, {len(found.tokens)} tokens")
    for title in ("llmzip", "language model alone", "contexts and matches alone", "xz -9e"):
        assert re.search(rf"^  {re.escape(title)} +\d+ bytes  \d\.\d{{3}} bits/byte$", text, re.MULTILINE)
    assert text.count(" bits  ") == 8


@pytest.fixture
def run(tmp_path, tiny_file, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_bytes(TEXT)

    def call(*args):
        with pytest.raises(SystemExit) as info:
            cli.cli(["inspect", "-m", str(tiny_file), *args], prog_name="llmzip")
        out, err = capfd.readouterr()
        return info.value.code, out, err

    return call


def test_the_command(run):
    code, out, err = run("a.txt", "--html", "a.html", "-n", "500")
    assert (code, err) == (0, "")
    assert out.startswith("a.txt: 500 bytes")
    assert "Where the bits go: a.txt" in Path("a.html").read_text()
    code, out, err = run("a.txt", "--html", "a.html", "-n", "500")
    assert out == ""
    assert (code, err) == (1, "llmzip: a.html: exists already (use -f to overwrite it)\n")
    assert run("a.txt", "--html", "a.html", "-f", "-n", "0")[1].startswith("a.txt: 2000 bytes")


def test_errors_of_the_command(run):
    Path("empty").touch()
    assert run("empty")[2] == "llmzip: empty: is empty: there is nothing to inspect\n"
    assert "it cannot be the output too" in run("a.txt", "--html", "a.txt", "-f")[2]
    assert run("missing")[2] == "llmzip: missing: No such file or directory\n"
    assert run("a.txt", "-m", "nosuch")[0] == 1
