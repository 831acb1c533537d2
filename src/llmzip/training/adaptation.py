"""Adapt a published model to a user's files: a dictionary and the mixer's initial state; its weights stay.

Training a network of this size takes machines that few users have, and its exact weights are no longer those it was
published with. What the files repeat word for word is in reach all the same.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from llmzip.atomic_output import check_target, output_file
from llmzip.coding.token_coder import TokenCoder
from llmzip.errors import FileError, ModelError
from llmzip.model.file import Model, dump, parse
from llmzip.tools import selftest
from llmzip.training.corpus import Packed, pack
from llmzip.training.fetching import local_paths
from llmzip.training.mixer import retrained
from llmzip.training.request import Request
from llmzip.training.survey import Survey, listed, survey

PIECE_BYTES = 1 << 16  # of the text in the dictionary
MOST_TOKENS = 1 << 16  # of a vocabulary whose text a dictionary can hold

CARD = """# Model `{name}`

{size} bytes, SHA-256 `{digest}`: the network of {base}, with {dictionary} bytes of the files below, word for word, as
its dictionary, and the mixer's initial state {mixer}.

{files} files ({kinds}), {total} bytes{left_out}.

The bytes held out, {heldout}, take {before:.3f} bits per byte with {base} and {after:.3f} with this model{favoured}.
"""


def adapt(request: Request, base: Model, warn: Callable[[FileError], object]) -> str:
    """Write the adapted model and its card as requested; return a line about it.

    `warn` is told of files that are skipped. Raises FileError, ModelError and OSError for what is the user's to mend.
    """
    if request.resume or request.minutes or request.steps:
        raise ModelError(
            f"the weights of {request.base} are not trained: it gets a dictionary and a mixer state only "
            "(leave out --resume, --minutes and --steps)"
        )
    if base.tokenizer.size > MOST_TOKENS:
        raise ModelError(f"{request.base} has more than {MOST_TOKENS} tokens, and dictionaries have not")
    check_target(str(request.output), source=None, force=request.force)
    with tempfile.TemporaryDirectory(prefix="llmzip-") as folder:
        return _adapted(request, base, warn, Path(folder))


def _adapted(request: Request, base: Model, warn: Callable[[FileError], object], folder: Path) -> str:
    tokenizer = base.tokenizer
    paths = local_paths(request.paths, folder / "fetched", quiet=request.quiet)
    text = survey(paths, request.seed, (request.output, request.card), request.field)
    for fault in text.warnings():
        warn(fault)
    if not request.quiet:
        print(*text.summary(), sep="\n", file=sys.stderr, flush=True)
    lengths = np.diff(tokenizer.offsets)
    pack(tokenizer, text.training_texts(), folder, PIECE_BYTES, request.seed)
    dictionary = Packed(folder).sample(lengths, request.dictionary_bytes, request.seed).copy()
    info: dict[str, Any] = {
        **{key: value for key, value in base.info.items() if key not in ("selftest", "training")},
        "name": request.output.stem,
        "training": {"from": base.digest.hex(), "seed": request.seed, "dictionary": int(lengths[dictionary].sum())},
    }
    whole = Model(base.weights, tokenizer, b"", info, base.initial_state, dictionary)
    heldout = [part for parts in text.heldout_texts().values() for part in parts]
    initial_state = retrained(whole, heldout, request.seed, threads=request.threads)
    info["selftest"] = selftest.make(replace(whole, initial_state=initial_state))
    data = dump(base.weights, tokenizer, info, initial_state, dictionary)
    with output_file(str(request.output), force=request.force) as out:
        out.write(data)
    card = _card(request, base, parse(data), text, b"".join(heldout))
    with output_file(str(request.card), force=True) as out:
        out.write(card.encode())
    return f"{request.output}, {len(data)} bytes, {info['training']['dictionary']} bytes of the text in its dictionary"


def _card(request: Request, base: Model, model: Model, text: Survey, heldout: bytes) -> str:
    def bits(which: Model) -> float:
        coded = TokenCoder(which, threads=request.threads).encode(heldout, capacity=2 * len(heldout) + 64)
        return 8 * len(coded.payload) / len(heldout) if coded else 8.0

    retrained_state = model.initial_state is not base.initial_state
    data = request.output.read_bytes()
    return CARD.format(
        name=request.output.stem,
        size=len(data),
        digest=hashlib.sha256(data).hexdigest(),
        base=request.base,
        dictionary=model.info["training"]["dictionary"],
        mixer="trained on the text held out" if retrained_state else "that it has",
        files=len(text.files),
        kinds=listed(text.tally.kinds),
        total=int(text.sizes.sum()),
        left_out=f"; left out: {listed(text.tally.left_out)}" if text.tally.left_out else "",
        heldout=len(heldout),
        before=bits(base),
        after=bits(model),
        favoured=", whose mixer they have trained" if retrained_state else "",
    )
