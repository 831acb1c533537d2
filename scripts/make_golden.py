"""Make the golden archives anew, after a change of the format, of the default model or of the adaptive stage.

    python scripts/make_golden.py

Say in CHANGELOG.md and docs/FORMAT.md what changed the bytes.
"""

from __future__ import annotations

from pathlib import Path

import llmzip

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"


def main() -> None:
    """Compress every original in the folder."""
    for original in sorted(p for p in GOLDEN.iterdir() if p.suffix != ".lz"):
        archive = llmzip.compress(original.read_bytes())
        original.with_name(original.name + ".lz").write_bytes(archive)
        print(original.name, original.stat().st_size, len(archive))


if __name__ == "__main__":
    main()
