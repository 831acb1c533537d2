"""Train the mixer's initial state and write it into a model file, or into the file for frames without a model.

    python scripts/train_mixer.py heldout/ --model default.safetensors --out default.safetensors
    python scripts/train_mixer.py heldout/ --out models/none.safetensors
    python scripts/train_mixer.py heldout/ --model smollm2-135m.safetensors --alone --out models/pretrained.safetensors

Use text that neither the model was trained on nor will be measured with.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import replace
from pathlib import Path

from safetensors.numpy import save
from tqdm import tqdm

from llmzip.model.file import dump, read
from llmzip.threads import usable_cores
from llmzip.tools import selftest
from llmzip.training.documents import readable_texts
from llmzip.training.mixer import train_initial_state


def pieces(paths: list[Path], size: int, per_file: int, seed: int, field: str | None) -> list[bytes]:
    """Return pieces of the files' documents, joined: of `size` bytes, a half and an eighth of it, in random order."""
    rng, found = random.Random(seed), []
    for _, text in readable_texts(paths, field):
        for i in range(per_file):
            length = size >> (0, 1, 3)[i % 3]
            start = rng.randrange(max(1, len(text) - length))
            found.append(text[start : start + length])
    rng.shuffle(found)
    return found


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--model", type=Path, help="model file; without it, for frames without a model")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--alone", action="store_true", help="write the initial state without the model")
    parser.add_argument("--bytes", type=int, default=49152, help="of the longest pieces")
    parser.add_argument("--field", help="of JSON lines, else they are text; of Parquet files, else text")
    parser.add_argument("--per-file", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    texts = pieces(args.paths, args.bytes, args.per_file, args.seed, args.field)
    model = read(args.model) if args.model else None
    with tqdm(total=sum(map(len, texts)), unit="B", unit_scale=True) as bar:
        initial_state = train_initial_state(texts, model, threads=usable_cores(), progress=bar.update)
    if model and not args.alone:
        test = selftest.make(replace(model, initial_state=initial_state))  # the initial state changes it
        info = {**model.info, "selftest": test}
        args.out.write_bytes(dump(model.weights, model.tokenizer, info, initial_state, model.dictionary))
    else:
        args.out.write_bytes(save(initial_state.tensors()))


if __name__ == "__main__":
    main()
