import collections

import numpy as np
import pytest

from llmzip import cli
from llmzip.coding import range_coder
from llmzip.coding.token_coder import TokenCoder
from llmzip.model import registry
from llmzip.tools.generate import _by_model, generate, random_bits
from llmzip.tools.token_probabilities import TokenProbabilities


def test_encoding_what_was_generated_gives_the_random_bits_back():
    model = registry.load()
    pieces = list(generate(model, b"", 400, seed=5, mixed=True))
    token_coder, ids = TokenCoder(model), {token: i for i, token in enumerate(model.tokenizer.tokens)}
    session, state = token_coder.session(1), range_coder.new_encoder()
    frame = token_coder.begin_frame([400 + int(token_coder.lengths.max())])
    out, token = np.empty(9000, np.uint8), token_coder.bos
    for piece in pieces[:-1]:  # the last one may have been cut
        seen = session.run(np.array([[token]], np.int32))
        token = ids[piece]
        frame.encode(np.array([[token]], np.int32), seen, state, out)
    size = int(range_coder.finish(state, out))
    assert size > 30
    assert out[: size - 4].tobytes() == random_bits(size - 4, 5)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("prompt", [b"", b"The cat", "Größe ".encode(), b"\xff\x00"])
def test_the_length_is_exact_and_the_seed_decides(tiny, prompt, mixed):
    def text(seed):
        return b"".join(generate(tiny, prompt, 100, seed=seed, mixed=mixed))

    assert len(text(1)) == 100
    assert text(1) == text(1)
    assert text(1) != text(2)
    assert text(None) != text(None)


def test_the_prompt_matters(tiny):
    assert b"".join(generate(tiny, b"a", 100, seed=1)) != b"".join(generate(tiny, b"b", 100, seed=1))


def test_temperature_and_top_k_narrow_the_choice(tiny):
    def different(**options):
        return len(set(generate(tiny, b"", 1000, seed=1, **options)))

    assert different(temperature=0.2) < different() < different(temperature=5.0)
    assert different(top_k=3) < different()
    best = list(generate(tiny, b"x", 50, seed=1, top_k=1))
    assert best == list(generate(tiny, b"x", 50, seed=2, top_k=1))


def test_tokens_come_as_often_as_the_model_says(tiny):
    token_coder, count = TokenCoder(tiny), 2000
    seen = token_coder.session(1).run(np.array([[token_coder.bos]], np.int32))
    wanted = TokenProbabilities(token_coder).of(seen)[0, 0]
    assert wanted.sum() == pytest.approx(1)
    decode = _by_model(token_coder, np.frombuffer(random_bits(20 * count, 1), np.uint8).copy(), 1.0, 0)
    came = collections.Counter(decode(seen) for _ in range(count))
    for token in np.argsort(-wanted)[:10].tolist():
        assert came[token] / count == pytest.approx(wanted[token], abs=4 * (wanted[token] / count) ** 0.5)


def run(*args):
    with pytest.raises(SystemExit) as info:
        cli.cli(["generate", *args], prog_name="llmzip")
    return info.value.code


def test_the_command_streams_text(tiny_file, capfdbinary):
    options = ["-m", str(tiny_file), "--seed", "3", "--length", "200"]
    assert run("--prompt", "Der Bär", *options) == 0
    first = capfdbinary.readouterr().out
    assert first.decode().startswith("Der Bär")  # valid UTF-8, whatever the model says
    assert run("--prompt", "Der Bär", *options) == 0
    assert capfdbinary.readouterr().out == first
    assert run("--prompt", "Der Bär", *options, "--temperature", "0.5") == 0
    assert capfdbinary.readouterr().out != first


def test_errors_of_the_command(capfd):
    assert run("-m", "nosuch") == 1
    assert "no model called nosuch" in capfd.readouterr().err
    for args in (["--length", "0"], ["--temperature", "0"], ["--seed", "x"], ["--mixed", "--top-k", "3"]):
        assert run(*args) == 2
