import numpy as np
import pytest

from llmzip import cli, coder
from llmzip.engine import Engine, Walker
from llmzip.generate import generate, random_bits


def test_encoding_what_was_generated_gives_the_random_bits_back(tiny):
    pieces = list(generate(tiny, b"", 300, seed=5))
    engine, ids = Engine(tiny), {token: i for i, token in enumerate(tiny.tokenizer.tokens)}
    session, walker, state = engine.session(1), Walker(engine, 1, 400), coder.new_encoder()
    out, token = np.empty(4000, np.uint8), engine.begin
    for piece in pieces[:-1]:  # the last one may have been cut
        seen = session.run(np.array([[token]], np.int32))
        token = ids[piece]
        walker.encode(np.array([[token]], np.int32), seen, state, out)
    size = int(coder.finish(state, out))
    assert size > 100
    assert out[: size - 4].tobytes() == random_bits(size - 4, 5)


@pytest.mark.parametrize("prompt", [b"", b"The cat", "Größe ".encode(), b"\xff\x00"])
def test_the_length_is_exact_and_the_seed_decides(tiny, prompt):
    def text(seed):
        return b"".join(generate(tiny, prompt, 100, seed=seed))

    assert len(text(1)) == 100
    assert text(1) == text(1)
    assert text(1) != text(2)
    assert text(None) != text(None)


def test_the_prompt_matters(tiny):
    assert b"".join(generate(tiny, b"a", 100, seed=1)) != b"".join(generate(tiny, b"b", 100, seed=1))


def test_temperature_narrows_the_choice(tiny):
    def different(temperature):
        return len(set(generate(tiny, b"", 2000, seed=1, temperature=temperature)))

    assert different(0.2) < different(1.0) < different(5.0)


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
    for args in (["--length", "0"], ["--temperature", "0"], ["--seed", "x"]):
        assert run(*args) == 2
