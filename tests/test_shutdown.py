"""Files that are closed, or not even that, while the interpreter shuts down: their data is kept, as gzip keeps it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ENVIRONMENT
from networks import tiny_model_file

import llmzip

CASES = {
    "closed by atexit": "f = llmzip.open('out.lz', 'wb', **options); f.write(data); atexit.register(f.close)",
    "never closed": "f = llmzip.open('out.lz', 'wb', **options); f.write(data)",
    "never closed, in a cycle": "f = llmzip.open('out.lz', 'wb', **options); f.write(data); f.me = f; del f",
    "text that is never closed": "f = llmzip.open('out.lz', 'wt', **options); f.write(data.decode())",
    "written by atexit": "f = llmzip.open('out.lz', 'wb', **options); atexit.register(lambda: f.write(data))",
    "compressed by atexit": "atexit.register(lambda: open('out.lz', 'wb').write(llmzip.compress(data, **options)))",
    "a thread that outlives the main one": """
def work():
    threading.main_thread().join()
    time.sleep(0.1)
    with llmzip.open('out.lz', 'wb', **options) as f:
        f.write(data)
threading.Thread(target=work).start()
""",
    "a file of a thread that outlives the main one": """
f = llmzip.open('out.lz', 'wb', **options)
def work():
    threading.main_thread().join()
    time.sleep(0.1)
    f.write(data)
threading.Thread(target=work).start()
""",
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("model", ["none", "tiny"])
def test_nothing_is_lost(tmp_path: Path, case: str, model: str) -> None:
    (tmp_path / "tiny.safetensors").write_bytes(tiny_model_file())
    options = {"model": "none" if model == "none" else str(tmp_path / "tiny.safetensors"), "threads": 2}
    program = "import atexit, threading, time\nimport llmzip\ndata = b'text ' * 3000\n"
    program += f"options = {options}\n{CASES[case]}\n"
    compiled = {key: value for key, value in ENVIRONMENT.items() if key != "NUMBA_DISABLE_JIT"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=compiled, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    archive = (tmp_path / "out.lz").read_bytes()
    assert llmzip.decompress(archive, model=None if model == "none" else options["model"]) == b"text " * 3000


def test_an_error_on_the_way_is_shown_and_the_others_are_closed(tmp_path: Path) -> None:
    program = """
import llmzip
full = llmzip.open('/dev/full', 'wb', model='none')
full.write(bytes(100_000))
good = llmzip.open('out.lz', 'wb', model='none')
good.write(b'good')
"""
    compiled = {key: value for key, value in ENVIRONMENT.items() if key != "NUMBA_DISABLE_JIT"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=compiled, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "No space left on device" in done.stderr
    assert llmzip.decompress((tmp_path / "out.lz").read_bytes()) == b"good"
