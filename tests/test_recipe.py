"""The recipe of a training: settings that follow from the size of the corpus."""

from __future__ import annotations

from llmzip.training.recipe import lanes_and_window, piece_bytes_for, vocabulary_for


def test_small_corpora_get_small_settings() -> None:
    assert 900 < vocabulary_for(100_000, 16384) < 1100
    assert vocabulary_for(1000, 16384) == 320
    assert vocabulary_for(100_000_000, 16384) == 16384
    assert lanes_and_window(40_000, 1) == (8, 64)
    assert lanes_and_window(10**9, 1) == (64, 128)
    assert lanes_and_window(10**9, 3) == (66, 128)
    assert piece_bytes_for(100_000) == 1562
    assert piece_bytes_for(10**9) == 65536
