"""The script that compares recipes at equal time of the processor."""

import contextlib
import json
from argparse import Namespace

import pytest
import torch
from helpers import script
from texts import words

from llmzip.training import trainer

compare = script("compare_recipes")
SHAPE = {"width": 32, "layers": 1, "hidden": 32, "clusters": 12}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def args(tmp_path, monkeypatch):
    """Two variants and little text; nothing is compiled."""
    for folder, seeds in (("corpus", range(6)), ("heldout", (7,))):
        (tmp_path / folder).mkdir()
        for seed in seeds:
            (tmp_path / folder / f"books_{seed}.txt").write_bytes(words(1500, seed))
    monkeypatch.setattr(trainer, "fusing", lambda _: contextlib.nullcontext())
    small = {"vocab": 300, "shape": SHAPE, "recipe": {"lanes": 4, "window": 32}}
    variants = {"plain": compare.Variant(**small), "with pairs": compare.Variant(**small, pairs=64)}
    monkeypatch.setattr(compare, "VARIANTS", variants)
    (tmp_path / "work").mkdir()
    paths = {name: tmp_path / name for name in ("corpus", "heldout", "work")}
    return Namespace(**paths, short=0.01, long=0.03, limit=2000)


def test_a_variant_is_trained_with_both_budgets_and_judged_by_the_pipeline(args, capsys):
    compare.compare("plain", args)
    folder = args.work / "plain"
    short, long = (json.loads((folder / f"{budget}.json").read_text()) for budget in ("short", "long"))
    assert 0.01 <= short["minutes"] < long["minutes"] >= 0.03
    assert short["tokens"] < long["tokens"]
    assert long["network"] < short["network"] < 8
    assert long["all"] == long["books"] < short["all"] < 8  # there are no other domains
    compare.table(["plain", "with pairs"], args.work)
    assert capsys.readouterr().out.count("| plain |") == 2
    before = (folder / "long.json").stat().st_mtime_ns
    compare.compare("plain", args)
    assert (folder / "long.json").stat().st_mtime_ns == before


def test_pairs_of_tokens_are_judged_by_the_network_alone_and_counted(args):
    for name in ("plain", "with pairs"):
        compare.compare(name, args)
    plain, pairs = (json.loads((args.work / name / "long.json").read_text()) for name in ("plain", "with-pairs"))
    assert "all" not in pairs
    assert pairs["size"] - plain["size"] == 7 * (64 * 64 + 64 * 32) // 8
    short, long = (
        torch.load(args.work / "with-pairs" / f"{budget}.pt", weights_only=True)["pairs.weight"]
        for budget in ("short", "long")
    )
    assert not torch.equal(short, long)  # they learn
