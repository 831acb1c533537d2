"""The commands that read whole files: compress, decompress, test."""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import Any

import click

from llmzip.cli.conversion import Conversion
from llmzip.cli.directions import Compression, Decompression, Verification
from llmzip.cli.many import Many
from llmzip.cli.options import (
    CLUSTER,
    FILES,
    FILES_FROM,
    JOBS,
    MEMORY,
    MODEL_OF_ARCHIVE,
    RECURSIVE,
    REPORT,
    THREADS,
    Bytes,
    ShardType,
    model_option,
    with_options,
)
from llmzip.cli.runner import each

_many = with_options(
    click.option("--output-dir", metavar="DIR", help="Write the outputs below DIR, a folder or a URL."),
    FILES_FROM,
    click.option("--resume", is_flag=True, help="Pass over files whose output is there and current."),
    REPORT,
    click.option("--shard", metavar="I/N", type=ShardType(), help="Take the I-th of N parts of the files only."),
    CLUSTER,
)
_conversion = with_options(
    FILES,
    click.option("-o", "--output", metavar="FILE", help="Write to FILE; - is standard output."),
    click.option("-c", "--stdout", is_flag=True, help="Write to standard output."),
    click.option("-f", "--force", is_flag=True, help="Overwrite; use terminals; compress archives."),
    click.option("-k", "--keep", is_flag=True, help="Keep the source, as without this option."),
    click.option("--rm", "remove", is_flag=True, help="Remove the source after success."),
)
_work = with_options(
    RECURSIVE,
    click.option("-q", "--quiet", is_flag=True, help="Report errors only."),
    click.option("-v", "--verbose", is_flag=True, help="Report sizes and speed of each file."),
    click.option("--no-progress", is_flag=True, help="Show no progress bar."),
    THREADS,
    JOBS,
)


@click.command()
@_conversion
@_work
@model_option(
    envvar="LLMZIP_MODEL",
    show_envvar=True,
    help="Use this model, or none; else the default model where it pays.",
)
@click.option(
    "--frame-size",
    metavar="SIZE",
    type=Bytes(1 << 20, 1 << 26),
    help="Cut the content into frames of SIZE, 1M to 64M; by default 64M.",
)
@click.option("--verify", is_flag=True, help="Decompress each archive before it gets its name.")
@_many
def compress(files: tuple[str, ...], **options: Any) -> None:
    """Compress each FILE to FILE.lz.

    \b
    Examples:
      llmzip compress report.txt
      llmzip compress -o report.lz report.txt
      llmzip compress --rm *.log
      llmzip compress -r notes
      cat *.txt | llmzip compress > all.lz
      llmzip compress -r notes --output-dir packed -j 0 --resume
      llmzip compress 's3://in/**/*.txt' --output-dir s3://out --cluster local

    The source is kept. The archive has its permissions and modification time. With -r, archives among
    the files of a folder are passed over. With --rm, archives are verified before the source is removed.

    Files, lists and folders may be URLs (s3://, gs://, https:// to read; needs the extra remote). With
    --output-dir, files of folders and patterns keep their paths below these, those of a list their whole
    paths. With --resume, an archive stays if it is complete, not older than its source, and holds as many
    bytes; another archive is replaced. A shard leaves a marker when it is done, and resumes by itself.
    docs/scaling.md says more.
    """  # noqa: D301 - click needs the character \b
    _run(Compression, files, options)


@click.command()
@_conversion
@_work
@MODEL_OF_ARCHIVE
@MEMORY
@click.option("--salvage", is_flag=True, help="Write what is left of a damaged archive.")
@_many
def decompress(files: tuple[str, ...], **options: Any) -> None:
    """Decompress each FILE.lz to FILE.

    \b
    Examples:
      llmzip decompress report.txt.lz
      llmzip decompress -c report.txt.lz | less
      llmzip decompress -m my.safetensors notes.lz
      llmzip decompress --salvage -o rest.txt damaged.lz

    The archive is kept. It names its model; other models than the shipped ones are searched for in the
    folders of LLMZIP_MODEL_PATH, or given with -m. With --salvage, undamaged frames are written, damaged
    ones are left out and named, and the exit code is 1. Options for many files are those of compress; with
    --resume, a file that differs in size from what its archive holds is not replaced without -f.
    """  # noqa: D301
    _run(Decompression, files, options)


@click.command()
@FILES
@_work
@MODEL_OF_ARCHIVE
@MEMORY
@FILES_FROM
@REPORT
@CLUSTER
def test(files: tuple[str, ...], **options: Any) -> None:
    """Verify each FILE.lz, and write nothing.

    \b
    Examples:
      llmzip test *.lz
      llmzip test -rv backup

    Everything is decompressed and compared with its checksums: what passes can be restored here.
    """  # noqa: D301
    _run(Verification, files, options)


def _run(kind: type[Conversion], files: tuple[str, ...], options: dict[str, Any]) -> None:
    """Convert every file and leave with the exit code."""
    many = Many(**{field.name: options.pop(field.name) for field in fields(Many) if field.name in options})
    conversion = kind(**options)
    conflict = conversion.conflict(len(files)) or (many.conflict(conversion, files) if many.asked_for else None)
    if conflict:
        raise click.UsageError(conflict)
    if many.asked_for:
        sys.exit(many.run(conversion, files))
    wanted = conversion.wanted if conversion.recursive else None
    sys.exit(each(files, conversion.run, wanted, conversion.files_at_once))
