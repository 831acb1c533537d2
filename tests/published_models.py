"""Small random models in the form in which language models are published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from llmzip.pretrained.byte_level import BYTES

LETTERS = {byte: letter for letter, byte in BYTES.items()}
WORDS = [" the", " of", "ing", "12", "é", "\n\n", " return", "狐"]
END = "<|endoftext|>"

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
QWEN2 = LLAMA | {
    "model_type": "qwen2",
    "num_key_value_heads": 1,
    "hidden_size": 96,
    "head_dim": 48,
    "num_attention_heads": 2,
}
KINDS = {"llama": LLAMA, "untied": LLAMA | {"tie_word_embeddings": False}, "qwen2": QWEN2}


def vocabulary() -> tuple[dict[str, int], list[str]]:
    """Return ids of a byte-level vocabulary and its merges; one byte, 0xF5, has no token."""
    ids = {END: 0} | {LETTERS[b]: i for i, b in enumerate((b for b in range(256) if b != 0xF5), 1)}
    merges = []
    for word in WORDS:
        letters = [LETTERS[b] for b in word.encode()]
        left = letters[0]
        for right in letters[1:]:
            if left + right not in ids:
                ids[left + right] = len(ids)
                merges.append(f"{left} {right}")
            left += right
    return ids, merges


def tensors(config: dict[str, Any], rows: int, seed: int = 1) -> dict[str, np.ndarray]:
    """Return random weights, large enough that predictions differ."""
    rng = np.random.default_rng(seed)
    width, hidden, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (rows, width), "model.norm.weight": (width,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (rows, width)
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        shapes |= {
            at + "input_layernorm.weight": (width,),
            at + "self_attn.q_proj.weight": (queries, width),
            at + "self_attn.k_proj.weight": (keys, width),
            at + "self_attn.v_proj.weight": (keys, width),
            at + "self_attn.o_proj.weight": (width, queries),
            at + "post_attention_layernorm.weight": (width,),
            at + "mlp.gate_proj.weight": (hidden, width),
            at + "mlp.up_proj.weight": (hidden, width),
            at + "mlp.down_proj.weight": (width, hidden),
        }
        if config["model_type"] == "qwen2":
            sizes = {"q": queries, "k": keys, "v": keys}
            shapes |= {f"{at}self_attn.{part}_proj.bias": (size,) for part, size in sizes.items()}

    def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name.endswith("norm.weight"):
            return 1 + 0.3 * rng.standard_normal(shape)
        # The output layer, which may be the embedding, makes predictions that are neither flat nor certain.
        output = "embed" in name or "lm_head" in name
        return rng.standard_normal(shape) / (4 if output else 1 if "bias" in name else np.sqrt(shape[-1]))

    return {name: values(name, shape).astype(np.float32) for name, shape in shapes.items()}


def write_folder(folder: Path, kind: str = "llama") -> Path:
    """Write a Hugging Face folder."""
    folder.mkdir(parents=True, exist_ok=True)
    ids, merges = vocabulary()
    config = KINDS[kind] | {"vocab_size": len(ids), "bos_token_id": 0, "eos_token_id": 0}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = {
        "version": "1.0",
        "added_tokens": [{"id": 0, "content": END, "special": True}],
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
            ],
        },
        "model": {"type": "BPE", "vocab": ids, "merges": merges},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    save_file(tensors(config, len(ids)), folder / "model.safetensors")
    return folder


def write_gguf(path: Path, kind: str = "llama") -> Path:
    """Write the same model as a GGUF file."""
    from gguf import GGUFWriter

    ids, merges = vocabulary()
    config = KINDS[kind]
    arch = str(config["model_type"])
    writer = GGUFWriter(path, arch)
    writer.add_name("Tiny Random")
    writer.add_license("cc0-1.0")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(list(ids))
    writer.add_token_types([3 if text == END else 1 for text in ids])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    for name, value in tensors(config, len(ids)).items():
        heads = {"q": "num_attention_heads", "k": "num_key_value_heads"}.get(name.split("_proj")[0][-1])
        if heads and arch == "llama" and "self_attn" in name and name.endswith("weight"):
            halves = value.reshape(config[heads], 2, -1, value.shape[1])
            value = halves.swapaxes(1, 2).reshape(value.shape)
        writer.add_tensor(_gguf_name(name), np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_name(name: str) -> str:
    from gguf import MODEL_ARCH, get_tensor_name_map

    base, _, kind = name.rpartition(".")
    return f"{get_tensor_name_map(MODEL_ARCH.LLAMA, 2).get_name(base)}.{kind}"
