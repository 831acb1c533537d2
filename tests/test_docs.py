"""The documentation's examples are run, and what is generated is current."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import script
from networks import tiny_model_file

from llmzip.model import registry

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.usefixtures("fsspec_tables")
@pytest.mark.parametrize(("page", "least"), [("docs/api.md", 6), ("README.md", 1)])
def test_the_python_examples_run(tmp_path, monkeypatch, page, least):
    model = tmp_path / "tiny.safetensors"
    model.write_bytes(tiny_model_file())
    monkeypatch.setattr(registry, "DEFAULT", str(model))
    monkeypatch.setenv("LLMZIP_MODEL_PATH", str(model))
    monkeypatch.chdir(tmp_path)
    text = (DOCS.parent / page).read_text()
    examples = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(examples) == text.count("```python") >= least
    names = {}  # they build on each other
    for example in examples:
        exec(example, names)  # noqa: S102


def test_what_the_help_says_is_what_the_documentation_says():
    make = script("make_cli_docs")
    assert (DOCS / "cli.md").read_text() == make.reference()
    assert (DOCS / "llmzip.1").read_text() == make.man_page()


@pytest.mark.skipif(not shutil.which("man"), reason="there is no man here")
def test_the_man_page_is_sound_and_shows_every_option():
    command = ["man", "--warnings", "-l", str(DOCS / "llmzip.1")]
    shown = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"MANWIDTH": "80", "PATH": "/usr/bin"}
    )
    assert shown.stderr == ""
    for word in ("--salvage", "LLMZIP_MODEL_PATH", "tar c docs | llmzip compress > docs.tar.lz"):
        assert word in shown.stdout


def examples(page):
    """Return the commands of a page's console blocks, each with what it is said to print."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            found.append((command, printed))
    return found


@pytest.mark.slow
def test_the_quick_start_is_what_happens(tmp_path):
    """In an empty folder, with the shipped model and a program called llmzip on the path."""
    program = tmp_path / "bin" / "llmzip"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m llmzip "$@"\n')
    program.chmod(0o755)
    path = [str(program.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LLMZIP_")}
    environment = {**clean, "PATH": os.pathsep.join(path), "PYTHONPATH": str(DOCS.parent / "src"), "LC_ALL": "C.UTF-8"}
    folder = tmp_path / "folder"
    folder.mkdir()
    commands = examples("quickstart.md")
    assert len(commands) > 15
    for command, printed in commands:
        shell = ["sh", "-c", command]
        done = subprocess.run(shell, cwd=folder, env=environment, text=True, stdout=-1, stderr=-2, check=False)
        shown = done.stdout + (f"[exit code {done.returncode}]\n" if done.returncode else "")
        pattern = re.escape(_narrow(printed)).replace("…", ".+")
        assert re.fullmatch(pattern, _narrow(shown)), f"{command}\n{shown}"


def _narrow(text):
    """Return `text` with single spaces: the width of columns depends on what is in them."""
    return re.sub(r"[ \t]+", " ", re.sub(r"^[ \t]+", "", text, flags=re.MULTILINE))


def test_links_lead_somewhere():
    roots = [DOCS.parent / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "models/default.md")]
    pages = [*roots, *DOCS.rglob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#:][^):]*)\)", page.read_text())]
    assert len(links) > 15
    assert [(page.name, link) for page, link in links if not (page.parent / link.partition("#")[0]).exists()] == []
