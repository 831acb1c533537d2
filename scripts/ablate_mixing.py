"""Measure what each input of the mixer is worth: bits per byte with one of them taken away at a time.

    python scripts/ablate_mixing.py [--model none|NAME|FILE] FILE...

Each row runs a copy of the package in which one expression is replaced by a constant, so that the context or
model concerned knows nothing; the initial state stays that of the whole. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "llmzip"
MODELS = Path(__file__).parents[1] / "models"

MEASURE = """
import sys
from pathlib import Path
model, files = sys.argv[1], [Path(f).read_bytes() for f in sys.argv[2:]]
if model == "none":
    from llmzip.api.frames import byte_coder
    encode = byte_coder()[0].encode
else:
    from llmzip.model import registry
    from llmzip.coding.token_coder import TokenCoder
    token_coder = TokenCoder(registry.load(model), threads=2)
    encode = lambda data: token_coder.encode(data).payload
print(sum(8 * len(encode(data)) / len(data) for data in files) / len(files))
"""

# Name of what is taken away -> (module, pattern, replacement).
EDITS: dict[str, tuple[str, str, str]] = {
    "repeats of 12 bytes and more": ("mixing/match.py", r"MATCH_LEAST = \(12, 5\)", "MATCH_LEAST = (1 << 30, 5)"),
    "repeats of 5 bytes and more": ("mixing/match.py", r"MATCH_LEAST = \(12, 5\)", "MATCH_LEAST = (12, 1 << 30)"),
    "the last two APMs": (
        "mixing/mixer.py",
        r"corrections = .*",
        'corrections = np.int64(core["squash"][mixed + LIMIT]) << (FINE_BITS - 15)',
    ),
}
CONTEXTS = (
    "last 4 bytes",
    "last 6 bytes",
    "word, last byte",
    "word, word before",
    "byte above, last byte, column",
    "expected byte, length of the match, last byte",
    "indentation, word",
    "shape, last byte",
    "last three marks, last byte",
    "separators in the line, last byte, near by",
    "word, near by",
    "tag, word",
    "last 2 bytes, near by",
    "last 3 bytes, near by",
)
EDITS |= {
    name: ("mixing/contexts.py", rf"hashes\[{i}\] = .*", f"hashes[{i}] = mixed_hash(np.int64(7), 7)")
    for i, name in enumerate(CONTEXTS)
}
TOKENS = ("the likeliest token", "the last token", "the last 2 tokens", "the last 3 tokens")
EDITS |= {
    f"decision with {name}": (
        "mixing/mixer.py",
        r'value = mixed_hash\(core\["tokens"\]\[i\], block\)',
        f'value = mixed_hash(core["tokens"][i] if i != {k} else np.int64(7), block if i != {k} else np.int64(7))',
    )
    for k, name in enumerate(TOKENS)
}
SETS = (
    "best match and model",
    "bits known",
    "contexts that know something and model",
    "last byte",
    "last token",
    "likeliest token",
)
EDITS |= {
    f"weights by {name}": (
        "mixing/mixer.py",
        rf'core\["weight_sets"\]\[{k}\] = .*',
        f'core["weight_sets"][{k}] = WEIGHT_SET_STARTS[{k}]',
    )
    for k, name in enumerate(SETS)
}
MODEL_EDITS: dict[str, tuple[str, str, str]] = {
    "the model's probability as it is": ("mixing/mixer.py", r"inputs\[MODEL_INPUTS\] = x", "inputs[MODEL_INPUTS] = 0"),
    "the model's APMs by bit histories": (
        "mixing/mixer.py",
        r'inputs\[MODEL_INPUTS \+ 1 \+ k\] = core\["stretch"\]',
        'inputs[MODEL_INPUTS + 1 + k] = 0 * core["stretch"]',
    ),
    "the model's APM by nodes": (
        "mixing/mixer.py",
        r'inputs\[MODEL_INPUTS \+ 3\] = core\["stretch"\]',
        'inputs[MODEL_INPUTS + 3] = 0 * core["stretch"]',
    ),
}
WITH_MODEL_ONLY = (*CONTEXTS[-5:], f"weights by {SETS[-2]}", f"weights by {SETS[-1]}", *MODEL_EDITS)
EDITS |= MODEL_EDITS


def measure(model: str, files: list[str], edit: tuple[str, str, str] | None, cache: str) -> float:
    """Return the mean bits per byte of the files with one edit; compiled kernels are kept in the folder `cache`."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "src" / "llmzip"
        shutil.copytree(PACKAGE, copy)
        os.symlink(MODELS, Path(folder) / "models")
        if edit:
            module = copy / edit[0]
            text, count = re.subn(edit[1], lambda _: edit[2], module.read_text())
            if not count:
                raise SystemExit(f"{edit[1]} does not occur in {edit[0]}")
            module.write_text(text)
        env = os.environ | {"PYTHONPATH": str(copy.parent), "XDG_CACHE_HOME": cache}
        command = [sys.executable, "-c", MEASURE, model, *files]
        return float(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Print the table, costliest loss first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--model", default="none")
    args = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as cache:  # an edit compiles only what depends on it
        whole = measure(args.model, args.files, None, cache)
        for name, edit in EDITS.items():
            if args.model != "none" or name not in WITH_MODEL_ONLY:
                rows[name] = measure(args.model, args.files, edit, cache)
                print(f"{rows[name]:.4f} without {name}", file=sys.stderr, flush=True)
    print(f"| taken away | bits/byte | more |\n|---|---|---|\n| nothing | {whole:.4f} | |")
    for name, bits in sorted(rows.items(), key=lambda row: -row[1]):
        print(f"| {name} | {bits:.4f} | {100 * (bits / whole - 1):+.2f} % |")


if __name__ == "__main__":
    main()
