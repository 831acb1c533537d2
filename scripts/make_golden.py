"""Make the golden archives anew, after a change of the format, of the default model or of the mixer.

    python scripts/make_golden.py

Say in CHANGELOG.md and docs/FORMAT.md what changed the bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import llmzip

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"


def main() -> None:
    """Compress every original in the folder as llmzip chooses, and one with the model whatever it chooses."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for original in sorted(p for p in GOLDEN.iterdir() if p.suffix != ".lz"):
        wanted = {".lz": None} | ({".default.lz": "default"} if original.name == "lanes.txt" else {})
        for suffix, model in wanted.items():
            archive = llmzip.compress(original.read_bytes(), model=model)
            original.with_name(original.name + suffix).write_bytes(archive)
            print(original.name + suffix, original.stat().st_size, len(archive))


if __name__ == "__main__":
    main()
