"""Read a model from a GGUF file, the format of llama.cpp, with the package `gguf`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from llmzip.errors import ModelError
from llmzip.model.registry import digest_of
from llmzip.pretrained.byte_level import ranks_of, to_bytes
from llmzip.pretrained.source import ARCHITECTURES, END, Floats, Source

NORMAL = 1  # the type of tokens that stand for text
SPLITTING = {"smollm": "gpt2-digits", "gpt-2": "gpt2", "llama-bpe": "llama3", "qwen2": "qwen2"}

NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
LAYER_NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    **{f"self_attn.{part}_proj.{kind}": f"attn_{part}.{kind}" for part in "qkv" for kind in ("weight", "bias")},
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}


def _file_name(name: str) -> str:
    if name.startswith("model.layers."):
        number, part = name.removeprefix("model.layers.").split(".", 1)
        return f"blk.{number}.{LAYER_NAMES.get(part, part)}"
    return NAMES.get(name, name)


def _halves(weight: Floats, heads: int) -> Floats:
    """Undo the order of rows that GGUF files of Llama have, where the channels that rotate together are neighbours."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def read(path: Path) -> Source:
    """Return the model in a GGUF file; raises ModelError for one that cannot be imported."""
    try:
        import gguf
    except ImportError as error:
        raise ModelError("reading GGUF files needs the package gguf (pip install 'llmzip[import]')") from error
    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError, OverflowError, TypeError) as error:
        raise ModelError("is not a GGUF file, or is cut short (fetch it again)") from error

    def field(name: str, default: Any = None) -> Any:
        found = reader.get_field(name)
        if found is None:
            if default is None:
                raise ModelError(f"the GGUF file does not say {name}")
            return default
        return found.contents()

    arch = field("general.architecture")
    if arch not in ARCHITECTURES:
        raise ModelError(f"models of the kind {arch} cannot be imported, only {', '.join(ARCHITECTURES)}")
    heads = field(f"{arch}.attention.head_count")
    kv_heads = field(f"{arch}.attention.head_count_kv", heads)
    width = field(f"{arch}.embedding_length")
    kind, pre = field("tokenizer.ggml.model"), field("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or pre not in SPLITTING:
        raise ModelError(f"its tokenizer ({kind}, {pre}) is not one that llmzip knows")
    texts, types = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    tokens = [to_bytes(text) if kind == NORMAL else None for text, kind in zip(texts, types, strict=True)]
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    if "rope_freqs.weight" in tensors:
        raise ModelError("its rotary positions are scaled, which cannot be imported")

    def tensor(name: str) -> Floats:
        found = tensors[_file_name(name)]
        try:
            values = np.array(gguf.dequantize(found.data, found.tensor_type), np.float32)
        except NotImplementedError as error:
            raise ModelError(f"weights of the type {found.tensor_type.name} cannot be read") from error
        values = values.reshape(tuple(int(n) for n in reversed(found.shape)))
        if arch != "llama":
            return values
        if name.endswith("q_proj.weight"):
            return _halves(values, heads)
        return _halves(values, kv_heads) if name.endswith("k_proj.weight") else values

    return Source(
        title=field("general.name", path.stem),
        licence=field("general.license", "unknown"),
        width=width,
        layers=field(f"{arch}.block_count"),
        heads=heads,
        kv_heads=kv_heads,
        head_width=field(f"{arch}.attention.key_length", width // heads),
        hidden=field(f"{arch}.feed_forward_length"),
        epsilon=field(f"{arch}.attention.layer_norm_rms_epsilon"),
        rotary_base=field(f"{arch}.rope.freq_base", 10000.0),
        tokens=tokens,
        ranks=ranks_of(field("tokenizer.ggml.merges"), tokens),
        start=texts.index(END) if END in texts else field("tokenizer.ggml.bos_token_id"),
        splitting=SPLITTING[pre],
        tensor=tensor,
        sha256=digest_of(path).hex(),
        biased=_file_name("model.layers.0.self_attn.q_proj.bias") in tensors,
        tied=_file_name("lm_head.weight") not in tensors,
    )
