"""Kills at the calls that change a disk, and disks on which these fail."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from archives import TEXT
from findings import Findings

import llmzip
from llmzip import atomic_output, cli
from llmzip.errors import LlmzipError

CHANGING = ("open", "link", "replace", "unlink", "fsync", "fchmod", "fchown", "utime")  # calls of os


class Faults:
    """Calls that change a disk, counted, and one of them made to fail or to kill the process."""

    def __init__(self, at: int, fault: Callable[[], None], after: bool):
        self.count, self._at, self._fault, self._after = 0, at, fault, after

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a call with the fault before it or after it."""

        def counted(*args: Any, **options: Any) -> Any:
            self.count += 1
            hit = self.count == self._at
            if hit and not self._after:
                self._fault()
            result = call(*args, **options)
            if hit and self._after:
                self._fault()
            return result

        return counted

    def install(self) -> None:
        """Replace the calls in this process."""
        for name in CHANGING:
            setattr(os, name, self.around(getattr(os, name)))
        atomic_output._Raw.write = self.around(atomic_output._Raw.write)  # type: ignore[method-assign]


def in_child(args: list[str], faults: Faults) -> tuple[int, int, str]:
    """Run the command line in a child with faults; return its status, the number of calls and what it said."""
    reader, writer = os.pipe()
    told_reader, told_writer = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(told_writer, 2)
        faults.install()
        code = 1
        try:
            cli.cli(args, prog_name="llmzip")
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            os.write(writer, json.dumps(faults.count).encode())
            os._exit(code)
    os.close(writer)
    os.close(told_writer)
    with open(reader, "rb") as counted, open(told_reader, "rb") as told:
        calls, said = counted.read(), told.read()
    status = os.waitpid(child, 0)[1]
    return status, int(calls or b"0"), said.decode()


COMMANDS = (
    ["compress", "-m", "none", "text"],
    ["compress", "-m", "none", "-f", "text"],
    ["compress", "-m", "none", "--rm", "text"],
    ["compress", "-m", "none", "--rm", "-f", "text"],
    ["decompress", "packed.lz"],
    ["decompress", "-f", "packed.lz"],
    ["decompress", "--rm", "packed.lz"],
)


def restores(data: bytes, command: list[str]) -> bool:
    """Return whether `data` is the complete output of a command."""
    with contextlib.suppress(LlmzipError):
        return (llmzip.decompress(data) if command[0] == "compress" else data) == TEXT
    return False


def outcome_of(folder: Path, command: list[str], status: int, said: str, packed: bytes) -> str:
    """Return what a run left behind."""
    compressing = command[0] == "compress"
    source, target = (folder / "text", folder / "text.lz") if compressing else (folder / "packed.lz", folder / "packed")
    original = TEXT if compressing else packed
    before = b"before" if "-f" in command else None
    left = [path for path in folder.iterdir() if path not in (source, target)]
    there = target.read_bytes() if target.exists() else None
    # To replace a file, its successor must have a name for the time between two calls, and a kill may come there.
    if left and not (len(left) == 1 and before and os.WIFSIGNALED(status) and restores(left[0].read_bytes(), command)):
        return "WRONG files left: " + ", ".join(path.name for path in left)
    complete = there is not None and restores(there, command)
    if not complete and there != before:
        return "WRONG output incomplete"
    if not source.exists():
        return "source removed, output complete" if complete and "--rm" in command else "WRONG source lost"
    if source.read_bytes() != original:
        return "WRONG source changed"
    if (
        os.WIFEXITED(status)
        and os.WEXITSTATUS(status) == 1
        and not (said.startswith("llmzip: ") and said.count("\n") == 1)
    ):
        return f"WRONG message: {said[:200]!r}"
    return "source kept, output " + ("complete" if complete else "as before") + ", and its successor" * bool(left)


def attack_disk(kills: int, seed: int) -> bool:
    """Kill runs at random calls, and let every call of each run fail."""
    rng, killed, full = random.Random(seed), Findings(), Findings()
    packed = llmzip.compress(TEXT, model="none")

    def run(command: list[str], faults: Faults) -> tuple[str, int]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "text" if command[0] == "compress" else folder / "packed.lz").write_bytes(
                TEXT if command[0] == "compress" else packed
            )
            if "-f" in command:
                (folder / ("text.lz" if command[0] == "compress" else "packed")).write_bytes(b"before")
            here = os.getcwd()
            os.chdir(folder)
            try:
                status, calls, said = in_child(command, faults)
            finally:
                os.chdir(here)
            return outcome_of(folder, command, status, said, packed), calls

    calls = {tuple(command): run(command, Faults(0, lambda: None, False))[1] for command in COMMANDS}
    for i in range(kills):
        command = COMMANDS[i % len(COMMANDS)]
        at = rng.randint(1, calls[tuple(command)])
        faults = Faults(at, lambda: os.kill(os.getpid(), signal.SIGKILL), bool(rng.randrange(2)))
        killed.add(run(command, faults)[0], f"{' '.join(command)}, call {at}")

    def fail(number: int) -> None:
        raise OSError(number, os.strerror(number))

    for command in COMMANDS:
        for at in range(1, calls[tuple(command)] + 1):
            for number in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
                outcome = run(command, Faults(at, lambda n=number: fail(n), False))[0]
                full.add(outcome, f"{' '.join(command)}, call {at}, {os.strerror(number)}")
    return all([killed.print("kills"), full.print("calls that fail")])
