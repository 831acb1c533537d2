"""The corpus: pieces, documents, streams of tokens."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import tiny_tokenizer
from texts import WORDS

from llmzip.training.corpus import Packed, Streams, cut_pieces, pack
from llmzip.training.documents import BLOCK, document_parts, documents, text_files

pytestmark = pytest.mark.usefixtures("one_thread")


def packed_pieces(folder: Path, lengths: list[int]) -> Packed:
    """Pack pieces whose tokens tell which piece they are of: piece i is i, 100 + i, 100 + i, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = [[i] + [100 + i] * (length - 1) for i, length in enumerate(lengths)]
    np.concatenate(pieces).astype(np.uint16).tofile(folder / "tokens.bin")
    starts = np.cumsum([0, *lengths[:-1]])
    np.save(folder / "pieces.npy", np.stack([starts, lengths], axis=1).astype(np.int64))
    return Packed(folder)


LENGTHS = [5, 1, 9, 30, 2, 7, 12, 3, 4]


BOS = 999


@pytest.fixture
def packed(tmp_path: Path) -> Packed:
    return packed_pieces(tmp_path / "pieces", LENGTHS)


def test_a_sample_is_of_random_pieces_in_their_order_and_as_long_as_asked(packed: Packed) -> None:
    token_bytes = np.full(200, 3)
    assert np.array_equal(packed.sample(token_bytes, 1000, seed=1), packed.tokens)
    samples = set()
    for seed in range(20):
        sample = packed.sample(token_bytes, 50, seed)
        assert len(sample) == 50 // 3
        assert np.array_equal(sample, np.sort(sample % 100) + 100 * (sample >= 100))  # ascending: in order
        samples.add(sample.tobytes())
    assert len(samples) > 5
    assert len(packed.sample(token_bytes, 2, 1)) == len(packed.sample(token_bytes, 0, 1)) == 0


def joined(streams: Streams, *steps: int) -> np.ndarray:
    """Return the inputs of consecutive calls as one array ``[T, lanes]``."""
    return np.concatenate([streams.next(n)[0].numpy() for n in steps])


def test_packed_pieces_hold_all_bytes_and_end_anywhere(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    texts = [WORDS * 30, b"second\x1e", b"third"]
    pack(tokenizer, ([text[:50], text[50:]] for text in texts), tmp_path, longest=100, seed=1)
    packed = Packed(tmp_path)
    spelled = [tokenizer.decode(packed.tokens[at : at + n]) for at, n in packed.pieces.tolist()]
    assert b"".join(spelled) == b"".join(texts)
    assert spelled[-2:] == texts[1:]  # a piece holds one document only
    lengths = [len(piece) for piece in spelled[:-3]]
    assert min(lengths) >= 25
    assert max(lengths) <= 100
    assert len(set(lengths)) > 10


def test_pieces_depend_on_the_seed_and_not_on_the_parts() -> None:
    def cut_with(seed: int, size: int) -> list[bytes]:
        parts = (WORDS[at : at + size] for at in range(0, len(WORDS), size))
        return list(cut_pieces(parts, 20, np.random.default_rng(seed)))

    assert cut_with(1, 1) == cut_with(1, 7) == cut_with(1, 1000) != cut_with(2, 1)


def test_packing_holds_a_piece_in_memory_and_not_the_text(tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes((WORDS * 600 + b"\x1e\n") * 40)  # 2.4 MB
    pack(tiny_tokenizer(), [[WORDS]], tmp_path, longest=4096, seed=1)  # compiles
    tracemalloc.start()
    try:
        pack(tiny_tokenizer(), [(part for _, part in document_parts(file))], tmp_path, longest=4096, seed=1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
    assert Packed(tmp_path).pieces[:, 1].sum() == len(Packed(tmp_path).tokens)


def test_text_files_are_listed_in_one_order(tmp_path: Path) -> None:
    for name in ("b/2", "b/1", "a", ".git/config", "b/.hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert text_files([tmp_path]) == [tmp_path / name for name in ("a", "b/1", "b/2")]
    assert text_files([tmp_path / "b" / "2", tmp_path / "a"]) == [tmp_path / "b" / "2", tmp_path / "a"]


def test_documents_are_separated_by_lines_of_the_separator_only_and_never_empty(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_bytes(b"\x1e\none\n\x1e\n\x1e\ntwo\x1e\nthree\x1e four\n\x1e\n")
    assert list(documents(file)) == [b"one\n", b"two\x1e\nthree\x1e four\n"]


@pytest.mark.parametrize("length", [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_long_lines_come_in_parts_and_hide_no_separator(length: int, tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_bytes(b"x" * length + b"\x1e\ny\n\x1e\nz")
    assert max(len(part) for _, part in document_parts(file)) <= BLOCK
    assert list(documents(file)) == [b"x" * length + b"\x1e\ny\n", b"z"]


def test_targets_are_the_inputs_one_step_on(packed: Packed) -> None:
    streams = Streams(packed, BOS, 3, seed=1)
    last = None
    for steps in (4, 1, 20, 2):
        inputs, targets = streams.next(steps)
        assert inputs.shape == targets.shape == (steps, 3)
        assert inputs.dtype == targets.dtype == torch.int64
        assert torch.equal(inputs[1:], targets[:-1])
        assert last is None or torch.equal(inputs[0], last)
        last = targets[-1]


def test_streams_are_pieces_behind_begin(packed: Packed) -> None:
    for lane in joined(Streams(packed, BOS, 3, seed=1), 300).T:
        assert lane[0] == BOS
        parts = np.split(lane, np.flatnonzero(lane == BOS))[1:-1]
        assert len(parts) > 20
        for part in parts:
            assert part.tolist() == [BOS, part[1]] + [100 + part[1]] * (LENGTHS[part[1]] - 1)


def test_one_lane_meets_every_piece_once_per_epoch(packed: Packed) -> None:
    lane = joined(Streams(packed, BOS, 1, seed=1), 500)[:, 0]
    order = lane[1:][lane[:-1] == BOS]
    count = len(LENGTHS)
    epochs = [order[at : at + count].tolist() for at in range(0, len(order) - count, count)]
    assert len(epochs) > 4
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_lanes_share_out_the_pieces_of_an_epoch(tmp_path: Path) -> None:
    packed = packed_pieces(tmp_path, [4] * 9)
    inputs, _ = Streams(packed, BOS, 3, seed=1).next(14)  # with the last target three pieces each
    assert sorted(inputs[1::5].flatten().tolist()) == list(range(9))


def test_streams_depend_on_the_seed_and_on_nothing_else(packed: Packed) -> None:
    windows = [30] * 6
    expected = joined(Streams(packed, BOS, 3, seed=1), *windows)
    assert np.array_equal(joined(Streams(packed, BOS, 3, seed=1), *windows), expected)
    assert not np.array_equal(joined(Streams(packed, BOS, 3, seed=2), *windows), expected)


@pytest.mark.parametrize("before", [0, 1, 10, 37, 200])
def test_restored_streams_go_on_with_the_same_tokens(before: int, packed: Packed) -> None:
    streams = Streams(packed, BOS, 3, seed=1)
    if before:
        streams.next(before)
    state = json.loads(json.dumps(streams.state()))  # nothing in it but numbers
    restored = Streams(packed, BOS, 3, seed=1)
    restored.next(5)
    restored.restore(state)
    assert np.array_equal(joined(restored, 60, 90), joined(streams, 60, 90))
