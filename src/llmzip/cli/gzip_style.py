"""The command line that gzip and zstd have: options name what to do, and without any it is to compress.

`tar -I llmzip` relies on it: it runs `llmzip`, and `llmzip -d`, between two pipes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence

COMMANDS = {
    "-z": "compress",
    "--compress": "compress",
    "-d": "decompress",
    "--decompress": "decompress",
    "--uncompress": "decompress",
    "-t": "test",
    "--test": "test",
    "-l": "list",
    "--list": "list",
}
OF_THE_GROUP = ("-h", "--help", "-V", "--version")
WITH_VALUE = (
    *("-o", "-m", "-M", "-T", "-j", "--output", "--model", "--memlimit", "--threads", "--jobs", "--frame-size"),
    *("--output-dir", "--files-from", "--shard", "--cluster"),
)
ABOUT_OUTPUT = ("-c", "-k", "-f", "--stdout", "--keep", "--force")  # test and list have none


def translated(args: Sequence[str], commands: Collection[str]) -> list[str]:
    """Return `args` with the command that they stand for in front; unchanged where they begin with a command.

    A first argument that is neither an option nor a file is left, too: it may be a command misspelt.
    """
    if not args:
        return [] if sys.stdin is None or sys.stdin.isatty() else ["compress"]
    first = args[0]
    if first in commands or first in OF_THE_GROUP or not (first.startswith("-") or os.path.lexists(first)):
        return list(args)
    command, rest = "compress", []
    waiting = list(reversed(args))
    while waiting:
        argument = waiting.pop()
        if argument == "--":
            rest += [argument, *reversed(waiting)]
            break
        if argument in COMMANDS:
            command = COMMANDS[argument]
        elif argument in WITH_VALUE:
            rest += [argument, *([waiting.pop()] if waiting else [])]
        elif len(argument) > 2 and argument[0] == "-" and argument[1].isalpha() and argument[:2] not in WITH_VALUE:
            waiting += ["-" + argument[2:], argument[:2]]  # options in one word: the first is taken next
        else:
            rest.append(argument)
    if command in ("test", "list"):
        rest = [argument for argument in rest if argument not in ABOUT_OUTPUT]
    return [command, *rest]
