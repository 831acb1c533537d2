"""The script that measures what a model remembers."""

import random
from itertools import islice

import numpy as np
import pytest
from helpers import script
from texts import words

from llmzip.model import registry
from llmzip.tools import generate

measure = script("measure_memorisation")


@pytest.fixture
def speaker(tiny_file):
    return measure.Speaker(str(tiny_file))


def said(speaker, prompt, tokens=measure.CONTINUATION):
    return b"".join(next_[0] for next_ in islice(speaker.go_on(prompt[None]), tokens))


def test_the_likeliest_tokens_are_those_of_generate(speaker, tiny_file):
    prompt = words(30)
    spoken = said(speaker, speaker.tokenizer.encode(prompt))
    assert spoken.startswith(b"".join(generate.generate(registry.load(str(tiny_file)), prompt, 40, top_k=1)))


def test_bytes_are_counted_up_to_the_first_that_differs(speaker):
    prompts = [speaker.tokenizer.encode(words(400, seed))[: measure.PROMPT] for seed in range(measure.LANES + 3)]
    passages = []
    for i, prompt in enumerate(prompts):
        spoken = said(speaker, prompt)
        source = spoken[:i] + bytes([spoken[i] ^ 1]) + spoken[i + 1 :] if i < 60 else spoken + b"more"
        passages.append(measure.Passage(None, prompt, source))
        passages[-1].expected = i if i < 60 else len(spoken)
    speaker.measure(passages)
    assert [p.verbatim for p in passages] == [p.expected for p in passages]


def test_passages_lie_inside_documents(speaker, tmp_path):
    long, short = [words(2000, seed) for seed in range(6)], [b"short and short\n"] * 60
    file, none = tmp_path / "kind_a.txt", tmp_path / "kind_b.txt"
    file.write_bytes(b"\x1e\n".join(long + short))
    none.write_bytes(b"\x1e\n".join(short))
    found = measure.passages(speaker, [file], 40, random.Random(1))
    assert len(found) == 40
    for passage in found:
        assert len(passage.prompt) == measure.PROMPT
        text = b"".join(speaker.tokenizer.tokens[t] for t in passage.prompt) + passage.source
        assert any(text in document for document in long)
    again = measure.passages(speaker, [file], 40, random.Random(1))
    assert all(np.array_equal(a.prompt, b.prompt) for a, b in zip(found, again, strict=True))
    assert measure.passages(speaker, [none], 40, random.Random(1)) == []


def test_domains_are_the_beginnings_of_names(tmp_path):
    for name in ("code_c.txt", "code_go.txt", "wiki.txt"):
        (tmp_path / name).write_bytes(b"")
    assert {k: [p.name for p in v] for k, v in measure.by_domain([tmp_path]).items()} == {
        "code": ["code_c.txt", "code_go.txt"],
        "wiki": ["wiki.txt"],
    }
