"""Attack llmzip, and print what came of it: hostile archives and models, kills, full disks.

    python scripts/attack [--mutations N] [--kills N] [--models N] [--seed N]

Every archive is mutated in its fields, with the checks of heads and lists made right again, so that no check keeps the
attack from what lies behind it. Compressions are killed before and after every kind of call that changes a disk, and
have those calls fail one by one. Exits with 1 if anything happened that must not: wrong bytes, an error that is none of
llmzip's, a lost source, an incomplete output, a call that takes minutes.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

from archives import FRAME_BYTES, TEXT, attack_archives
from disk import attack_disk

import llmzip
from llmzip.api import stream
from models import attack_models


def main() -> None:
    """Attack, and exit with 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    stream.FRAME_BYTES = FRAME_BYTES
    llmzip.decompress(llmzip.compress(TEXT, model="none"))  # compiled before the children are forked
    started = time.monotonic()
    sound = [
        attack_disk(args.kills, args.seed) if args.kills else True,
        attack_archives(args.mutations, args.seed) if args.mutations else True,
        attack_models(args.models, args.seed) if args.models else True,
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    result = "sound" if all(sound) else "WRONG"
    print(f"{time.monotonic() - started:.0f} s, {peak} MiB at most, seed {args.seed}: {result}")
    sys.exit(not all(sound))


if __name__ == "__main__":
    main()
