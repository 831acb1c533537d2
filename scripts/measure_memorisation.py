"""Measure how far a model goes on with passages word for word: with text it was trained on, and with text it was not.

    python scripts/measure_memorisation.py models/default.safetensors corpus/ --heldout heldout/

A passage's first 64 tokens are the prompt; then the network alone, without the mixer, says 64 times what it thinks the
likeliest token. What counts is how many bytes agree with the source from the first on. Each domain gives as many
passages of either kind, at random places, so that the kinds differ only in whether the text was trained on: only what
training text has more than held-out text is remembered. A domain is the part of a file's name before the first
underscore. A second table goes on with openings that are everywhere.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from llmzip.coding.token_coder import TokenCoder
from llmzip.model import registry
from llmzip.network.head import Prediction
from llmzip.tools.token_probabilities import TokenProbabilities
from llmzip.training.documents import SEPARATOR, domain_of, is_plain, text_files

PROMPT = CONTINUATION = 64  # tokens
READ = 4096  # bytes: prompts and continuations are shorter
LANES = 64
LONG = 50  # bytes
SHOWN = 5  # passages of each kind
TRIES = 50  # places for each passage wanted: documents may be too short

# What everybody quotes, and how it goes on.
OPENINGS = (
    ("We hold these truths to be", " self-evident, that all men are created equal, that they are endowed by their"),
    (
        "It was the best of times",
        ", it was the worst of times, it was the age of wisdom",
    ),
    ("Call me Ishmael. Some years ago", "—never mind how long precisely—having little or no money in my purse"),
    ("It is a truth universally acknowledged", ", that a single man in possession of a good fortune, must be in want"),
    ("Four score and seven years ago", " our fathers brought forth on this continent, a new nation, conceived in"),
    ("In the beginning God created", " the heaven and the earth. And the earth was without form, and void"),
    ("To be, or not to be,", " that is the question: Whether 'tis nobler in the mind to suffer"),
    (
        "MIT License\n\n",
        "Permission is hereby granted, free of charge, to any person obtaining a copy",
    ),
    ("GNU GENERAL PUBLIC LICENSE\n", "Version 3, 29 June 2007"),
    ("Lorem ipsum", " dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore"),
)


@dataclass
class Passage:
    """A prompt int32 ``[PROMPT]``, what follows it in its file, and how many of those bytes the model produced."""

    file: Path
    prompt: np.ndarray
    source: bytes
    verbatim: int = 0


def agreeing(a: bytes, b: bytes) -> int:
    """Return how many leading bytes of both are the same."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


class Speaker:
    """The network alone, without the mixer, choosing always the likeliest token."""

    def __init__(self, name: str):
        self._token_coder = TokenCoder(registry.load(name))
        self._probabilities = TokenProbabilities(self._token_coder)
        self.tokenizer = self._token_coder.tokenizer

    def go_on(self, prompts: np.ndarray) -> Iterator[list[bytes]]:
        """Go on with prompts int32 ``[B, T]``: yield their next tokens, endlessly."""
        session = self._token_coder.session(len(prompts))
        begin = np.full((1, len(prompts)), self._token_coder.bos, np.int32)
        prediction = session.run(np.concatenate([begin, prompts.T]))
        while True:
            last = Prediction(prediction.cluster_acc[-1:], prediction.hidden[-1:], prediction.scale[-1:])
            chosen = self._probabilities.of(last).argmax(-1).astype(np.int32)
            yield [self.tokenizer.tokens[token] for token in chosen[0]]
            prediction = session.run(chosen)

    def measure(self, passages: list[Passage]) -> None:
        """Set how far the model goes on with each passage word for word."""
        for at in range(0, len(passages), LANES):
            some = passages[at : at + LANES]
            said = [b""] * len(some)
            for tokens in islice(self.go_on(np.stack([p.prompt for p in some])), CONTINUATION):
                said = [before + token for before, token in zip(said, tokens, strict=True)]
                if not any(p.source.startswith(s) for p, s in zip(some, said, strict=True)):
                    break
            for passage, s in zip(some, said, strict=True):
                passage.verbatim = agreeing(passage.source, s)


def by_domain(paths: list[Path]) -> dict[str, list[Path]]:
    """Return the plain text files of each domain: passages are read from anywhere in a file."""
    found = defaultdict(list)
    for path in filter(is_plain, text_files(paths)):
        found[domain_of(path)].append(path)
    return found


def passages(speaker: Speaker, files: list[Path], count: int, rng: random.Random) -> list[Passage]:
    """Return up to `count` passages of the files' documents, from places where any byte is as likely as any other."""
    sizes, found = [file.stat().st_size for file in files], []
    for _ in range(TRIES * count):
        [i] = rng.choices(range(len(files)), sizes)
        with files[i].open("rb") as opened:
            opened.seek(rng.randrange(sizes[i]))
            text = opened.read(READ).lstrip(bytes(range(0x80, 0xC0)))  # no half characters
        tokens = speaker.tokenizer.encode(text.partition(b"\n" + SEPARATOR)[0])
        if len(tokens) >= PROMPT + CONTINUATION:
            source = b"".join(speaker.tokenizer.tokens[token] for token in tokens[PROMPT:])
            found.append(Passage(files[i], tokens[:PROMPT], source))
        if len(found) == count:
            break
    return found


def summary(found: list[Passage]) -> str:
    """Return the cells for some passages."""
    lengths = np.array([p.verbatim for p in found])
    return f"{lengths.mean():.1f} | {lengths.max()} | {100 * (lengths >= LONG).mean():.1f} %"


def code(text: bytes) -> str:
    """Return text as code for a table."""
    shown = repr(text.decode("utf-8", "replace"))[1:-1]
    return f"`{shown.translate(str.maketrans('|`', '!.'))}`"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("corpus", nargs="+", type=Path)
    parser.add_argument("--heldout", type=Path, required=True)
    parser.add_argument("--per-domain", type=int, default=8, help="passages of either kind")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    speaker, rng = Speaker(args.model), random.Random(args.seed)
    trained, heldout = by_domain(args.corpus), by_domain([args.heldout])
    domains = {}
    for domain in sorted(trained.keys() & heldout.keys()):
        pair = [passages(speaker, files[domain], args.per_domain, rng) for files in (trained, heldout)]
        count = min(map(len, pair))
        if count:
            domains[domain] = [some[:count] for some in pair]
    kinds = [[p for pair in domains.values() for p in pair[i]] for i in range(2)]
    for kind in kinds:
        speaker.measure(kind)

    print("| domain | passages | mean bytes | max | 50 and more | held out: mean bytes | max | 50 and more |")
    print("|---|---|---|---|---|---|---|---|")
    for domain, pair in [*domains.items(), ("all", kinds)]:
        print(f"| {domain} | {len(pair[0])} | {summary(pair[0])} | {summary(pair[1])} |")

    print("\n| longest | bytes | in | word for word |\n|---|---|---|---|")
    for name, kind in zip(("training text", "held-out text"), kinds, strict=True):
        for p in sorted(kind, key=lambda p: -p.verbatim)[:SHOWN]:
            print(f"| {name} | {p.verbatim} | {p.file.name} | {code(p.source[: p.verbatim])} |")

    print("\n| opening | bytes word for word | how the model goes on |\n|---|---|---|")
    for opening, source in OPENINGS:
        prompt = speaker.tokenizer.encode(opening.encode())
        said = b"".join(tokens[0] for tokens in islice(speaker.go_on(prompt[None]), CONTINUATION))
        print(f"| {code(opening.encode())} | {agreeing(source.encode(), said)} | {code(said[:80])} |")


if __name__ == "__main__":
    main()
