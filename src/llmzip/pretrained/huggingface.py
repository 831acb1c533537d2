"""Read a model from a Hugging Face folder: config.json, tokenizer.json, and weights in safetensors files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from llmzip.errors import ModelError
from llmzip.model.registry import digest_of
from llmzip.pretrained.byte_level import ranks_of, to_bytes
from llmzip.pretrained.source import ARCHITECTURES, END, Floats, Source

NEWER = (  # the rule of Llama 3 and Qwen2, but for how many digits go together
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def read(folder: Path) -> Source:
    """Return the model in a folder; raises ModelError for one that cannot be imported."""
    config, tokenizer = _json(folder / "config.json"), _json(folder / "tokenizer.json")
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ModelError(f"models of the kind {kind} cannot be imported, only {known}")
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if scaling.get("rope_type", scaling.get("type", "default")) != "default":
        raise ModelError(f"rotary positions of the kind {scaling} cannot be imported")
    if config.get("use_sliding_window") or config.get("mlp_bias") or config.get("hidden_act", "silu") != "silu":
        raise ModelError("a sliding window, biases of the MLP and activations but silu cannot be imported")
    files = _weight_files(folder)
    names, tensor = _tensors(files)
    try:
        heads, width = config["num_attention_heads"], config["hidden_size"]
        return Source(
            title=Path(config.get("_name_or_path") or folder.resolve().name).name,
            licence=config.get("license", ""),
            width=width,
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads", heads),
            head_width=config.get("head_dim") or width // heads,
            hidden=config["intermediate_size"],
            epsilon=config["rms_norm_eps"],
            rotary_base=float(config.get("rope_theta") or scaling.get("rope_theta", 10000.0)),
            tokens=(tokens := _tokens(tokenizer)),
            ranks=ranks_of(tokenizer["model"]["merges"], tokens),
            start=_start(config, tokenizer),
            splitting=_splitting(tokenizer),
            tensor=tensor,
            sha256=_digest(files),
            biased="model.layers.0.self_attn.q_proj.bias" in names,
            tied="lm_head.weight" not in names or bool(config.get("tie_word_embeddings")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise ModelError(f"config.json or tokenizer.json is not as expected: {type(error).__name__} {error}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelError(f"lacks {path.name} (a folder of a model has config.json, tokenizer.json, {WHOLE})") from error
    except ValueError as error:
        raise ModelError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path.name} is not a JSON object")
    return content


def _weight_files(folder: Path) -> list[Path]:
    in_parts = (folder / INDEX).is_file()
    names = sorted(set(_json(folder / INDEX).get("weight_map", {}).values())) if in_parts else [WHOLE]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing or not names:
        raise ModelError(f"lacks {', '.join(missing) or WHOLE}")
    return [folder / name for name in names]


def _tensors(files: list[Path]) -> tuple[Collection[str], Callable[[str], Floats]]:
    """Return the names of all tensors, and a function from a name to its values in float32."""
    from safetensors import SafetensorError, safe_open

    where: dict[str, Any] = {}
    for path in files:
        try:
            opened = safe_open(path, framework="pt")  # NumPy has no bfloat16
        except SafetensorError as error:
            raise ModelError(f"{path.name} is damaged, or cut short (fetch it again): {error}") from error
        where |= dict.fromkeys(list(opened.keys()), opened)  # type: ignore[no-untyped-call]

    def tensor(name: str) -> Floats:
        return np.ascontiguousarray(where[name].get_tensor(name).float().numpy())

    return where.keys(), tensor


def _digest(files: list[Path]) -> str:
    """Return the SHA-256 of the weights' file; of several, that of their digests."""
    digests = [digest_of(path).hex() for path in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _tokens(tokenizer: dict[str, Any]) -> list[bytes | None]:
    """Return the byte strings of the vocabulary; None for tokens that stand for no text."""
    model = tokenizer["model"]
    if model.get("type", "BPE") != "BPE" or model.get("byte_fallback"):
        raise ModelError("its tokenizer is not byte-level byte-pair encoding, the only one that can be imported")
    added = {entry["id"] for entry in tokenizer.get("added_tokens", [])}
    ids: dict[str, int] = model["vocab"]
    tokens: list[bytes | None] = [None] * (max(*ids.values(), *added, 0) + 1)
    for text, row in ids.items():
        if row not in added:
            tokens[row] = to_bytes(text)
    return tokens


def _start(config: dict[str, Any], tokenizer: dict[str, Any]) -> int:
    """Return the row that starts a text: the token between texts, or the begin-of-text token."""
    added = {entry["content"]: int(entry["id"]) for entry in tokenizer.get("added_tokens", [])}
    if END in added:
        return added[END]
    for key in ("bos_token_id", "eos_token_id"):
        row = config.get(key)
        row = row[0] if isinstance(row, list) else row
        if isinstance(row, int):
            return row
    raise ModelError("nothing says which token starts a text")


def _splitting(tokenizer: dict[str, Any]) -> str:
    """Return the name of our rules that cut as the tokenizer's pre-tokenizer does."""
    first = tokenizer.get("pre_tokenizer") or {}
    steps = first.get("pretokenizers", [first])
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and steps[1].get("use_regex", True):
        return "gpt2-digits"
    if kinds == ["Split", "ByteLevel"] and steps[0].get("behavior") == "Isolated":
        pattern = steps[0].get("pattern", {}).get("Regex")
        for splitting, digits in (("qwen2", r"\p{N}"), ("llama3", r"\p{N}{1,3}")):
            if pattern == NEWER.format(digits):
                return splitting
    raise ModelError(f"its tokenizer cuts text by rules that llmzip does not know ({', '.join(map(str, kinds))})")
