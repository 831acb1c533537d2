"""Many files: outputs in another folder, lists of files, what is there already, shards, a report at the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import click

from llmzip.batch.plan import Failed, Item, inputs, items, make_folder, names_in, total
from llmzip.batch.report import Outcome, Report
from llmzip.batch.resume import is_current
from llmzip.batch.shard import Shard
from llmzip.batch.task import Work, failure
from llmzip.cli.conversion import Conversion
from llmzip.cli.progress_bar import on_terminal, progress_bar
from llmzip.cli.runner import write
from llmzip.cli.source import STANDARD, printable
from llmzip.errors import FileError, LlmzipError
from llmzip.threads import in_order, usable_cores


@dataclass(frozen=True, kw_only=True)
class Many:
    """The options for many files."""

    output_dir: str | None = None
    files_from: str | None = None
    resume: bool = False
    as_json: bool = False
    shard: Shard | None = None
    cluster: str | None = None  # the address of its scheduler, or "local"

    @property
    def asked_for(self) -> bool:
        """Return whether any of them has been given."""
        return self != Many()

    def conflict(self, conversion: Conversion, files: tuple[str, ...]) -> str | None:
        """Return why these options cannot be used together, None if they can."""
        if not files and self.files_from is None:
            return "there are no files to work on"
        if STANDARD in files:
            return "standard input is not one of many files"
        if conversion.output is not None or conversion.stdout:
            return "-o and -c cannot be used with options for many files (use --output-dir)"
        if self.output_dir == "":
            return "--output-dir needs the name of a folder"
        if self.shard and self.output_dir is None:
            return "--shard needs --output-dir, where it leaves a marker"
        if self.cluster and conversion.remove:
            return "--rm cannot be used with --cluster"
        if self.cluster and self.shard:
            return "--shard is for machines without a cluster"
        if self.cluster == "":
            return "--cluster needs the address of a scheduler, or local"
        return None

    def run(self, conversion: Conversion, files: tuple[str, ...]) -> int:
        """Convert all files, report, and return the exit code; a file that fails does not stop the others."""
        summary = Report()

        def count(outcome: Outcome) -> None:
            summary.add(outcome)
            if outcome.state == "failed":
                click.echo(f"llmzip: {printable(outcome.name)}: {printable(outcome.error)}", err=True)

        def failed(name: str, error: Exception) -> None:
            count(failure(name, error))

        found = self._items(conversion, files, failed)
        if self.shard and self.output_dir is not None:
            found = self.shard.of(found)
            if self._shard_is_done(found, failed):
                summary.skipped, found = len(found), []
        with progress_bar("llmzip", total(found), shown=on_terminal() and not conversion.quiet) as progress:
            try:
                for item, outcome in self._outcomes(conversion, found):
                    count(outcome)
                    if progress:
                        progress(item.size or 0)
            except FileError as error:  # of the cluster, not of a file
                failed(error.filename, error)
        if self.shard and self.output_dir is not None and found and not summary.failures:
            try:
                self.shard.mark(found, self.output_dir)
            except (LlmzipError, OSError) as error:
                failed(self.output_dir, error)
        code = 1 if summary.failures else 0
        if not conversion.quiet:
            click.echo(f"llmzip: {summary.line()}", err=True)
        if self.as_json:
            code = max(code, write(json.dumps(summary.as_dict(), indent=2) + "\n"))
        return code

    def _items(self, conversion: Conversion, files: tuple[str, ...], failed: Failed) -> list[Item]:
        wanted = conversion.wanted if conversion.recursive else None
        found = list(inputs(files, failed, wanted=wanted))
        if self.files_from is not None:
            try:
                listed = names_in(self.files_from)
            except (LlmzipError, OSError) as error:
                failed(self.files_from, error)
            else:
                found += inputs(listed, failed, wanted=wanted, listed=True)
        if not conversion.writes:
            return [Item(file.name, None, file.size) for file in found]
        return list(items(found, conversion.derive, self.output_dir, failed))

    def _shard_is_done(self, found: list[Item], failed: Failed) -> bool:
        try:
            return self.shard is not None and self.shard.is_done(found, self.output_dir or "")
        except (LlmzipError, OSError) as error:
            failed(self.output_dir or "", error)
            return False

    def _outcomes(self, conversion: Conversion, found: list[Item]) -> Iterator[tuple[Item, Outcome]]:
        """Do the work, in threads here or on a cluster; in the order of the files, or as it is done."""
        work = conversion.work(resume=self.resume or self.shard is not None)
        if self.cluster is None:
            quiet = replace(conversion, no_progress=True)
            yield from in_order((partial(_convert, quiet, item, work) for item in found), conversion.files_at_once)
            return
        from llmzip import cluster

        workers = conversion.jobs if conversion.jobs != 1 else usable_cores()
        with cluster.connected(self.cluster, workers=workers) as client:
            yield from cluster.outcomes(client, found, work)


def _convert(conversion: Conversion, item: Item, work: Work) -> tuple[Item, Outcome]:
    """Convert one file here, with everything that the command line offers."""
    try:
        if item.target is not None:
            if work.resume and is_current(item.source, item.target):
                return item, Outcome(item.source, "skipped")
            make_folder(item.target)
            conversion = replace(conversion, force=work.may_replace(item.target))
        return item, Outcome(item.source, "done", *conversion.run(item.source, item.target))
    except Exception as error:  # the others get their turn
        return item, failure(item.source, error)
