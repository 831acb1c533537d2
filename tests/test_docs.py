"""The documentation's examples are run, and what is generated is current."""

import re
from pathlib import Path

import pytest
from networks import tiny_model_file

from llmzip import models

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.usefixtures("fsspec_tables")
def test_the_examples_of_the_python_page_run(tmp_path, monkeypatch):
    model = tmp_path / "tiny.safetensors"
    model.write_bytes(tiny_model_file())
    monkeypatch.setattr(models, "DEFAULT", str(model))
    monkeypatch.setenv("LLMZIP_MODEL_PATH", str(model))
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "api.md").read_text()
    examples = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(examples) == text.count("```python") > 5
    page = {}  # they build on each other
    for example in examples:
        exec(example, page)  # noqa: S102
