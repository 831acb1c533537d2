"""Run the command line, as ``llmzip`` and as ``python -m llmzip``."""

import signal


def main() -> None:
    """Import the command line and run it."""
    # Until there is something to clean up, Ctrl-C shall end the program at once and silently.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from llmzip import cli

    cli.main()


if __name__ == "__main__":
    main()
