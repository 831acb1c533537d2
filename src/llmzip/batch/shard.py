"""One of n equal parts of the files, for machines that know nothing of each other: Slurm arrays, plain ssh.

A shard that has been worked off without a failure leaves a marker in the output folder; with it, the same shard of the
same files is passed over as a whole.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from llmzip.api.remote import new_file, open_file, status
from llmzip.batch.plan import Item, joined, make_folder

FOLDER = ".llmzip-shards"


@dataclass(frozen=True)
class Shard:
    """The shard `number`, from 1, of `count`."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the shard that i/n stands for; raises ValueError for anything else."""
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(f"{text!r} is not i/n, with i from 1 to n")
        return cls(int(match[1]), int(match[2]))

    def of(self, items: Sequence[Item]) -> list[Item]:
        """Return every n-th of the items: large and small ones, and folders, are spread evenly."""
        return list(items[self.number - 1 :: self.count])

    def is_done(self, items: Sequence[Item], output_dir: str) -> bool:
        """Return whether there is a marker for exactly these items."""
        marker = self._marker(output_dir)
        if status(marker) is None:
            return False
        with open_file(marker) as file:
            return file.read() == self._mark(items)

    def mark(self, items: Sequence[Item], output_dir: str) -> None:
        """Leave the marker."""
        marker = self._marker(output_dir)
        make_folder(marker)
        with new_file(marker, force=True) as file:
            file.write(self._mark(items))

    def _marker(self, output_dir: str) -> str:
        return joined(output_dir, f"{FOLDER}/{self.number}-of-{self.count}.json")

    @staticmethod
    def _mark(items: Sequence[Item]) -> bytes:
        digest = hashlib.sha256()
        for item in items:
            digest.update(f"{item.source}\0{item.target}\0{item.size}\n".encode(errors="surrogateescape"))
        return json.dumps({"files": len(items), "sha256": digest.hexdigest()}).encode() + b"\n"
