"""The learning curve as a picture, where matplotlib is installed (the extra ``plot``)."""

from __future__ import annotations

import json
from pathlib import Path


def draw(metrics: Path, picture: Path) -> bool:
    """Draw bits per byte over steps from a metrics.jsonl; return False if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    axes = (figure := Figure(figsize=(8, 5), layout="constrained")).subplots()
    for key, label in (("bits_per_byte", "training"), ("heldout_bits_per_byte", "held out")):
        points = [(line["step"], line[key]) for line in lines if key in line]
        axes.plot(*zip(*points, strict=True) if points else ((), ()), label=label, marker="." if key[0] == "h" else "")
    axes.set(xlabel="steps", ylabel="bits per byte, network alone")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(picture)
    return True
