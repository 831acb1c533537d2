"""Training: the loss and its gradients, the streams of text, the optimiser, checkpoints, export."""

from __future__ import annotations

import errno
import json
import math
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import tiny_model, tiny_tokenizer

from llmzip.coding.lanes import cut
from llmzip.coding.token_coder import TokenCoder
from llmzip.errors import ModelError
from llmzip.model import file as modelfile
from llmzip.training import trainer as trainer_module
from llmzip.training.corpus import BLOCK, Packed, Streams, cut_pieces, document_parts, documents, pack, text_files
from llmzip.training.evaluation import Heldout, exact_bits, nats_of
from llmzip.training.export import LOGIT_UNIT, between, export, quantise, restore
from llmzip.training.loss import TwoLevelCrossEntropy
from llmzip.training.model import LanguageModel
from llmzip.training.muon import Muon, orthogonalise
from llmzip.training.recipe import Recipe
from llmzip.training.trainer import Trainer, load_model
from llmzip.training.workers import Workers

WORDS = b"the thing and another one are on the table, and nobody knows what to do with it. 1900 was long ago\n"


pytestmark = pytest.mark.usefixtures("one_thread")


# The loss


def random_head(seed: int, starts: list[int], vocab: int, rows: int = 40) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(rows, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    w1 = torch.randn(len(starts), 6, generator=generator, dtype=torch.float64, requires_grad=True)
    w2 = torch.randn(vocab, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, vocab, (rows,), generator=generator)
    return h, w1, w2, target, torch.tensor(starts)


def naive_losses(h: torch.Tensor, w1: torch.Tensor, w2: torch.Tensor, target: torch.Tensor, starts: torch.Tensor):
    """Return -log of P(cluster) * P(token | cluster), from the definition."""
    bounds = [*starts.tolist(), len(w2)]
    losses = []
    for row, token in zip(h, target.tolist(), strict=True):
        if not 0 <= token < len(w2):
            losses.append(row.sum() * 0)
            continue
        cluster = max(c for c in range(len(starts)) if bounds[c] <= token)
        members = slice(bounds[cluster], bounds[cluster + 1])
        first = torch.log_softmax(w1 @ row, 0)[cluster]
        second = torch.log_softmax(w2[members] @ row, 0)[token - bounds[cluster]]
        losses.append(-first - second)
    return torch.stack(losses)


# An ordinary cut, single tokens as clusters, one cluster, clusters that no target falls into.
STARTS = [[0, 3, 4, 5, 11], list(range(17)), [0], [0, 1, 2, 16]]


@pytest.mark.parametrize("starts", STARTS)
def test_two_level_loss_and_gradients_are_those_of_two_softmaxes(starts: list[int]) -> None:
    h, w1, w2, target, first = random_head(0, starts, 17)
    target[3], target[7] = 17, -1  # BOS and padding cost nothing
    total, losses = TwoLevelCrossEntropy.apply(h, w1, w2, target, first)
    expected = naive_losses(h, w1, w2, target, first)
    # The loss itself is summed in float32.
    assert torch.allclose(losses.double(), expected, atol=1e-5)
    assert losses[3] == losses[7] == 0
    assert total.item() == pytest.approx(expected.sum().item(), rel=1e-6)
    got = torch.autograd.grad(3 * total, (h, w1, w2))
    wanted = torch.autograd.grad(3 * expected.sum(), (h, w1, w2))
    for a, b in zip(got, wanted, strict=True):
        assert torch.allclose(a.double(), b, atol=1e-5)


def test_flat_head_is_plain_cross_entropy() -> None:
    h, w1, w2, target, starts = random_head(1, [0], 17)
    _, losses = TwoLevelCrossEntropy.apply(h, w1, w2, target, starts)
    expected = torch.nn.functional.cross_entropy(h @ w2.t(), target, reduction="none")
    assert torch.allclose(losses.double(), expected, atol=1e-5)


def test_loss_of_rows_without_a_target_is_zero() -> None:
    h, w1, w2, target, starts = random_head(2, [0, 5], 17)
    total, _ = TwoLevelCrossEntropy.apply(h, w1, w2, target.fill_(17), starts)
    assert total.item() == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(total, (h, w1, w2)))


def test_loss_does_not_change_its_inputs() -> None:
    inputs = random_head(3, [0, 3, 4, 5, 11], 17)
    copies = [tensor.detach().clone() for tensor in inputs]
    TwoLevelCrossEntropy.apply(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(inputs, copies, strict=True))


# The corpus


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


# Muon


@pytest.mark.parametrize("shape", [(24, 24), (16, 60), (60, 16)])
def test_orthogonalised_matrix_has_singular_values_near_one_and_the_same_directions(
    shape: tuple[int, int],
) -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(shape, generator=generator)
    result = orthogonalise(matrix)
    values = torch.linalg.svdvals(result)
    assert values.max() < 1.3
    assert values[: int(0.9 * len(values))].min() > 0.6
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    nearest = u @ vt
    assert (result * nearest).sum() / (result.norm() * nearest.norm()) > 0.97


def test_muon_steps_against_the_gradient_by_its_rate() -> None:
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(8, 20, generator=generator).requires_grad_()
    start = matrix.detach().clone()
    gradient = torch.randn(8, 20, generator=generator)
    matrix.grad = gradient
    Muon([matrix], lr=0.1, weight_decay=0.0).step()
    change = matrix.detach() - start
    assert torch.allclose(change, -0.1 * orthogonalise(gradient), atol=1e-5)


def test_muon_keeps_its_momentum_and_decays_weights() -> None:
    matrix = torch.eye(6).requires_grad_()
    optimiser = Muon([matrix], lr=0.1, momentum=0.9, weight_decay=0.5)
    matrix.grad = torch.zeros(6, 6)
    optimiser.step()
    assert torch.allclose(matrix.detach(), 0.95 * torch.eye(6))
    matrix.grad = torch.eye(6)
    optimiser.step()
    assert torch.allclose(optimiser.state[matrix]["momentum"], 0.1 * torch.eye(6))


# The trainer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Return a folder with 50 KB of packed text."""
    folder = tmp_path_factory.mktemp("corpus")
    words = WORDS.split()
    rng = np.random.default_rng(0)
    text = b" ".join(words[i] for i in rng.zipf(1.5, 12_000) % len(words))[:50_000]
    pack(tiny_tokenizer(), [[text]], folder, longest=2000, seed=1)
    return folder


TOKEN_BYTES = np.array([len(token) for token in tiny_tokenizer().tokens])


def new_trainer(corpus: Path, folder: Path, minutes: float = 1.0, **varied: float) -> Trainer:
    recipe = Recipe(**{"minutes": minutes, "lanes": 8, "window": 32, "warmup_steps": 5, "report_steps": 1, **varied})
    return Trainer(tiny_model(layers=1, width=32, hidden=48), Packed(corpus), recipe, folder, TOKEN_BYTES)


def steps(trainer: Trainer, count: int) -> list[float]:
    return [trainer.train_step() for _ in range(count)]


def parameters(trainer: Trainer) -> list[torch.Tensor]:
    return [p.detach().clone() for p in trainer.model.parameters()]


def test_loss_falls_on_a_small_corpus(corpus: Path, tmp_path: Path) -> None:
    trainer = new_trainer(corpus, tmp_path)
    losses = steps(trainer, 80)
    assert np.mean(losses[:3]) > 4
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:3])
    assert trainer.step == 80
    assert trainer.tokens == 80 * 8 * 32


def test_every_parameter_is_trained(corpus: Path, tmp_path: Path) -> None:
    trainer = new_trainer(corpus, tmp_path)
    before = parameters(trainer)
    steps(trainer, 2)
    for (name, after), start in zip(trainer.model.named_parameters(), before, strict=True):
        assert not torch.equal(after, start), name
    matrices = {id(p) for p in trainer.optimisers[0].param_groups[0]["params"]}
    mixers = [*trainer.model.token_mixers.parameters(), *trainer.model.channel_mixers.parameters()]
    assert matrices == {id(p) for p in mixers if p.ndim == 2}


def test_resumed_training_is_the_training_that_was_not_interrupted(corpus: Path, tmp_path: Path) -> None:
    whole = new_trainer(corpus, tmp_path / "whole")
    expected = steps(whole, 12)
    first = new_trainer(corpus, tmp_path / "cut")
    assert steps(first, 5) == expected[:5]
    first.save()
    steps(first, 2)  # lost by the interruption
    second = new_trainer(corpus, tmp_path / "cut")
    second.resume()
    assert steps(second, 7) == expected[5:]
    assert (second.step, second.tokens) == (whole.step, whole.tokens)
    assert all(torch.equal(a, b) for a, b in zip(parameters(second), parameters(whole), strict=True))


def test_checkpoint_with_other_lanes_is_refused(corpus: Path, tmp_path: Path) -> None:
    new_trainer(corpus, tmp_path).save()
    with pytest.raises(ModelError, match=r"has 8 lanes, not 16 \(give --lanes 8\)"):
        new_trainer(corpus, tmp_path, lanes=16).resume()


def test_checkpoint_with_lanes_that_the_processes_cannot_share_says_how_many_can(corpus: Path, tmp_path: Path) -> None:
    new_trainer(corpus, tmp_path).save()
    third = new_trainer(corpus, tmp_path, lanes=9)  # what --lanes 8 comes to
    third.workers = Workers(count=3)
    with pytest.raises(ModelError, match=r"has 8 lanes, not 9 \(use a number of processes that divides 8\)"):
        third.resume()


def test_interrupted_save_leaves_the_checkpoint_before_it(corpus: Path, tmp_path: Path, monkeypatch) -> None:
    trainer = new_trainer(corpus, tmp_path)
    steps(trainer, 2)
    trainer.save()
    saved = parameters(trainer)
    steps(trainer, 1)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left") as caught:
            trainer.save()
    assert caught.value.filename == str(tmp_path / "checkpoint.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    again = new_trainer(corpus, tmp_path)
    again.resume()
    assert again.step == 2
    assert all(torch.equal(a, b) for a, b in zip(parameters(again), saved, strict=True))


def test_checkpoint_gives_the_network_back(corpus: Path, tmp_path: Path) -> None:
    trainer = new_trainer(corpus, tmp_path)
    steps(trainer, 2)
    trainer.save()
    model = load_model(tmp_path / "checkpoint.pt")
    assert model.config == trainer.model.config
    expected = trainer.model.state_dict()
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_run_uses_the_budget_up_and_writes_metrics_and_a_checkpoint(corpus: Path, tmp_path: Path) -> None:
    trainer = new_trainer(corpus, tmp_path, minutes=0.005)
    trainer.run()
    assert trainer.elapsed >= 0.3
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, trainer.step + 1))
    for line in lines:
        bytes_per_token = line["bits_per_token"] / line["bits_per_byte"]
        assert 1 < bytes_per_token < 3
        assert line["tokens_per_second"] > 0
    again = new_trainer(corpus, tmp_path, minutes=0.005)
    again.resume()
    assert (again.step, again.tokens, again.elapsed) == (trainer.step, trainer.tokens, trainer.elapsed)
    again.run()  # the budget is that of all sessions
    assert again.step == trainer.step


def test_run_stops_when_the_loss_is_no_number(corpus: Path, tmp_path: Path) -> None:
    trainer = new_trainer(corpus, tmp_path)
    with torch.no_grad():
        trainer.model.embedding.weight.fill_(math.nan)
    with pytest.raises(ModelError, match="at step 1"):
        trainer.run()
    assert not (tmp_path / "checkpoint.pt").exists()


def test_rate_warms_up_and_falls_to_zero_over_the_rest_of_the_budget(corpus: Path, tmp_path: Path) -> None:
    trainer = new_trainer(corpus, tmp_path, minutes=1.0, decay_from=0.5)
    warmed = []
    for trainer.step in range(7):
        warmed.append(trainer._learning_rate_factor())
    assert warmed == [0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0]
    factors = []
    for trainer.elapsed in (0.0, 30.0, 45.0, 60.0, 70.0):
        factors.append(trainer._learning_rate_factor())
    assert factors == [1.0, 1.0, 0.5, 0.0, 0.0]


def test_bf16_is_used_only_where_the_cpu_has_it(monkeypatch) -> None:
    cpu = torch.device("cpu")
    for name, value in (("_is_avx512_bf16_supported", False), ("_is_amx_tile_supported", False)):
        monkeypatch.setattr(torch.cpu, name, lambda value=value: value)
    assert not trainer_module.bf16_in_hardware(cpu)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert trainer_module.bf16_in_hardware(cpu)


def test_training_in_bf16_learns_the_same_and_what_it_exports_works(corpus: Path, tmp_path: Path, monkeypatch) -> None:
    losses = {}
    for precision in ("float32", "bf16"):
        monkeypatch.setattr(trainer_module, "bf16_in_hardware", lambda _, wanted=precision: wanted == "bf16")
        trainer = new_trainer(corpus, tmp_path / precision)
        assert trainer.precision == precision
        losses[precision] = steps(trainer, 20)
    assert losses["bf16"][-1] < 0.9 * losses["bf16"][0]
    assert losses["bf16"] != losses["float32"]
    assert losses["bf16"] == pytest.approx(losses["float32"], rel=0.02)
    token_coder = TokenCoder(modelfile.parse(modelfile.dump(export(trainer.model), tiny_tokenizer(), {})))
    text = WORDS * 10
    coded = token_coder.encode(text)
    assert token_coder.decode(coded.payload, coded.lane_bytes) == text
    expected = nats_of(trainer.model, tiny_tokenizer().encode(text), 1) / math.log(2)
    assert exact_bits(token_coder, text, 1) == pytest.approx(expected, rel=0.02)


def metrics(folder: Path, key: str) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line[key]) for line in lines if key in line]


def test_killed_run_goes_on_to_the_same_weights_and_metrics(corpus: Path, tmp_path: Path) -> None:
    budget = {"minutes": math.inf, "steps": 20, "validations": 4, "checkpoint_seconds": 1e9}

    def validate(model: LanguageModel) -> float:
        return float(model.head_token.detach().abs().mean())

    whole = new_trainer(corpus, tmp_path / "whole", **budget)
    whole.run(validate)
    first = new_trainer(corpus, tmp_path / "cut", **budget)

    def killed() -> bool:
        if first.step == 13:
            raise RuntimeError
        return False

    with pytest.raises(RuntimeError):
        first.run(validate, killed)  # the last checkpoint is that of the validation at step 10
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "half a li')
    second = new_trainer(corpus, tmp_path / "cut", **budget)
    second.resume()
    assert second.step == 10
    second.run(validate)
    assert all(torch.equal(a, b) for a, b in zip(parameters(second), parameters(whole), strict=True))
    for key in ("bits_per_byte", "heldout_bits_per_byte", "rate"):
        assert metrics(tmp_path / "cut", key) == metrics(tmp_path / "whole", key)
    assert [step for step, _ in metrics(tmp_path / "cut", "heldout_bits_per_byte")] == [5, 10, 15, 20]


def test_best_weights_are_kept_and_training_ends_without_progress(corpus: Path, tmp_path: Path) -> None:
    bits = iter([3.0, 2.0, 2.5, 2.4, 2.0, 1.0])
    trainer = new_trainer(corpus, tmp_path, minutes=math.inf, steps=100, validations=50, patience=3)
    seen = {}

    def validate(model: LanguageModel) -> float:
        seen[trainer.step] = model.head_token.detach().clone()
        return next(bits)

    trainer.run(validate)
    assert [b for _, _, b in trainer.validations] == [3.0, 2.0, 2.5, 2.4, 2.0]
    assert torch.equal(load_model(tmp_path / "best.pt").head_token, seen[4])


def test_stopped_run_saves_what_there_is(corpus: Path, tmp_path: Path) -> None:
    trainer = new_trainer(corpus, tmp_path)
    trainer.run(stop=lambda: trainer.step == 3)
    again = new_trainer(corpus, tmp_path)
    again.resume()
    assert again.step == 3


def naive_nats(model: LanguageModel, tokens: np.ndarray) -> float:
    """Return what one lane costs, token by token."""
    targets = torch.from_numpy(tokens.astype(np.int64))
    inputs = torch.cat([torch.tensor([model.bos]), targets[:-1]])[:, None]
    hidden, _ = model(inputs, model.initial_state(1))
    head = model.head_cluster, model.head_token, targets, model.cluster_starts
    return float(naive_losses(hidden[:, 0], *head).sum())


@torch.no_grad()
@pytest.mark.parametrize("lanes", [1, 3, 16])
def test_nats_are_those_of_the_probabilities_lane_by_lane(lanes: int) -> None:
    # 300 steps in one lane are more than it runs at once.
    model, tokens = tiny_model(), np.random.default_rng(0).integers(0, 256, 300).astype(np.int32)
    expected = sum(naive_nats(model, lane[lane >= 0]) for lane in cut(tokens, lanes).T)
    assert nats_of(model, tokens, lanes) == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_heldout_bits_are_those_of_each_domain() -> None:
    tokenizer, model = tiny_tokenizer(), tiny_model()
    heldout = Heldout(tokenizer, {"one": [WORDS, WORDS[:50]], "two": [b"x"]})
    expected = {
        "one": naive_nats(model, tokenizer.encode(WORDS + WORDS[:50])),
        "two": naive_nats(model, tokenizer.encode(b"x")),
    }
    bits = heldout.bits(model)
    assert list(bits) == ["one", "two"]
    for domain, nats in expected.items():
        assert bits[domain] == pytest.approx(nats / math.log(2), rel=1e-5)
    assert heldout.bits_per_byte(model) == pytest.approx(sum(bits.values()) / (len(WORDS) + 51))


def test_exact_bits_are_what_the_coder_pays_without_the_adaptive_stage(tiny) -> None:
    token_coder, text = TokenCoder(tiny), WORDS * 4
    grid = cut(token_coder.tokenizer.encode(text), 3)
    inputs = np.vstack([np.full((1, 3), token_coder.bos, np.int32), np.maximum(grid[:-1], 0)])
    seen, head, starts = token_coder.session(3).run(inputs), token_coder.head, token_coder.tree.starts
    nats = 0.0
    for t, b in zip(*np.nonzero(grid >= 0), strict=True):
        token, scale = int(grid[t, b]), seen.scale[t, b]
        cluster = int(token_coder.tree.cluster_of[token])
        members = slice(int(starts[cluster]), int(starts[cluster + 1]))
        first = torch.from_numpy(seen.cluster_acc[t, b] * scale * head.cluster_scales).double() / LOGIT_UNIT
        acc = head.weights[members].astype(np.int64) @ seen.hidden[t, b].astype(np.int64)
        second = torch.from_numpy(acc * scale * head.token_scales[members]).double() / LOGIT_UNIT
        nats -= float(first.log_softmax(0)[cluster] + second.log_softmax(0)[token - members.start])
    assert exact_bits(token_coder, text, 3) == pytest.approx(nats / math.log(2), rel=1e-4)


# Export


def test_quantise_rounds_each_row_to_its_own_scale() -> None:
    weight = torch.tensor([[0.63, -0.315, 0.004], [0.0, 0.0, 0.0], [-126.0, 1.0, 3.0]])
    matrix = quantise(weight, factor=2.0)
    assert matrix.q.tolist() == [[63, -32, 0], [0, 0, 0], [-63, 0, 2]]
    assert np.allclose(matrix.scale, [0.02, 2.0, 4.0])
    assert (matrix.q.dtype, matrix.scale.dtype) == (np.int8, np.float32)


def test_export_keeps_every_weight_to_half_a_step() -> None:
    model = tiny_model()
    weights = export(model)
    pairs = [
        (weights.embedding, model.embedding.weight, 1.0),
        (weights.head_cluster, model.head_cluster, LOGIT_UNIT),
        (weights.head_token, model.head_token, LOGIT_UNIT),
    ]
    for layer, token, channel in zip(weights.layers, model.token_mixers, model.channel_mixers, strict=True):
        pairs += [(layer.token_in, token.w_in.weight, 1.0), (layer.token_out, token.w_out.weight, 1.0)]
        pairs += [
            (layer.channel_up, channel.w_up.weight, 1.0),
            (layer.channel_down, channel.w_down.weight, 1.0),
        ]
        assert np.array_equal(layer.token_shift, token.shift.detach().numpy())
        assert np.array_equal(layer.forget_bias, token.forget_bias.detach().numpy())
        assert np.array_equal(layer.channel_shift, channel.shift.detach().numpy())
    for matrix, parameter, factor in pairs:
        error = matrix.q * matrix.scale[:, None] - parameter.detach().numpy() * factor
        assert (np.abs(error) <= 0.501 * matrix.scale[:, None]).all()
        assert (np.abs(matrix.q).max(1) == 63).all()
    assert np.array_equal(weights.cluster_starts, model.cluster_starts.numpy())


def test_network_between_two_has_the_share_asked_for_of_each() -> None:
    base, model = tiny_model(1), tiny_model(2)
    expected = [0.25 * old + 0.75 * new for old, new in zip(base.parameters(), model.parameters(), strict=True)]
    found = list(between(base, model, 0.75).parameters())
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))


def test_restored_network_exports_to_the_same_integers() -> None:
    weights = export(tiny_model())
    again = export(restore(weights))
    assert np.array_equal(again.cluster_starts, weights.cluster_starts)
    pairs = [(again.embedding, weights.embedding), (again.head_cluster, weights.head_cluster)]
    pairs += [(again.head_token, weights.head_token)]
    for a, b in zip(again.layers, weights.layers, strict=True):
        pairs += zip(a.matrices(), b.matrices(), strict=True)
        for name in ("token_shift", "forget_bias", "channel_shift"):
            assert np.array_equal(getattr(a, name), getattr(b, name))
    for a, b in pairs:
        assert np.array_equal(a.q, b.q)
        assert np.allclose(a.scale, b.scale, rtol=1e-6)
