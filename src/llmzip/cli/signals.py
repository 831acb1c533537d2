"""Fatal signals: clean up, then end by the same signal, so that a shell knows and stops its loop."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import NoReturn

from llmzip.atomic_output import remove_unfinished

# Those that end a process and can be handled in Python; faults like SIGSEGV cannot.
FATAL = tuple(
    getattr(signal, name)
    for name in (
        "SIGINT",
        "SIGTERM",
        "SIGHUP",
        "SIGQUIT",
        "SIGALRM",
        "SIGVTALRM",
        "SIGPROF",
        "SIGXCPU",
        "SIGUSR1",
        "SIGUSR2",
        "SIGPOLL",
        "SIGPWR",
    )
    if hasattr(signal, name)
)


def clean_up_on_signals() -> None:
    """Handle every fatal signal that is not handled or ignored, as nohup does with SIGHUP."""
    for number in FATAL:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _stop)


def end_by(number: int) -> NoReturn:
    """End the process by a signal, whoever handles or blocks it."""
    signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # the signal did not end it


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    """Remove temporary files and end at once.

    An exception from here, raised wherever the main thread is, could leave a lock closed that other threads wait for.
    """
    remove_unfinished()
    end_by(number)
