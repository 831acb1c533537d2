"""A model's self-test: a text inside its file, with its archive and a digest of what the network makes of it.

Replayed on another machine, it shows that the machine computes the model exactly, before anybody's text depends on
it. The text is the same for every model, as what a model was trained on may be private.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from llmzip.coding import lanes
from llmzip.coding.token_coder import TokenCoder
from llmzip.errors import HardwareError, ModelError
from llmzip.model.file import Model
from llmzip.network.llama.flat_head import FlatPrediction

TEXT = (
    "It was the kind of morning on which nothing could be expected to happen, and so the engine stopped in the "
    "middle of the bridge.\n\tfor (int i = 0; i < 1887; i++) { total += prices[i] * 0.25; }\r\n"
    "2026-11-24T07:15:02Z WARN [net-4] retry 3/5: 192.168.0.17:8080 refused\n"
    "Grüße aus Łódź, déjà vu, Привет, 長い文章を短くする。\n{'key': [1, 22, 333], 'other': null}\n"
)
LANES = 2


def make(model: Model) -> dict[str, Any]:
    """Return the self-test of a model, for the JSON of its file."""
    network, payload = _replay(model, TEXT)
    return {"text": TEXT, "network_sha256": network, "payload": base64.b64encode(payload).decode()}


def verify(model: Model, *, device: str = "cpu") -> None:
    """Replay a model's self-test.

    Raises HardwareError if this machine computes the network differently, ModelError if the model has no
    self-test or this version of llmzip codes differently from the one that made the model.
    """
    test: Any = model.info.get("selftest")
    try:
        text, digest, payload = test["text"], test["network_sha256"], base64.b64decode(test["payload"])
    except (TypeError, KeyError, ValueError) as error:
        raise ModelError("the model has no self-test") from error
    network, coded = _replay(model, text, device)
    if network != digest:
        raise HardwareError("this machine does not compute the model exactly: its self-test fails (see llmzip doctor)")
    if coded != payload:
        raise ModelError("the model's self-test was made by an llmzip that codes differently (train or fetch it again)")


def _replay(model: Model, text: str, device: str = "cpu") -> tuple[str, bytes]:
    """Return the SHA-256 of the network's predictions, and the coded text, from which the text was decoded."""
    token_coder, data = TokenCoder(model, device=device), text.encode()
    grid = lanes.cut(model.tokenizer.encode(data), LANES)
    prediction = token_coder.session(LANES).run(lanes.inputs_of(grid, token_coder.bos))
    network = hashlib.sha256()
    if isinstance(prediction, FlatPrediction):  # its rows may be longer than the vocabulary
        prediction = prediction._replace(frequencies=prediction.frequencies[..., : model.weights.vocab])
    for array in prediction:  # integers and float32
        network.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    coded = token_coder.encode(data, lane_count=LANES, capacity=8 * len(data))
    if coded is None:
        raise ModelError("the model is useless: its self-test text does not fit in eight times its size")
    if token_coder.decode(coded.payload, coded.lane_bytes) != data:
        raise HardwareError("this machine does not decode what it has coded: its self-test fails (see llmzip doctor)")
    return network.hexdigest(), coded.payload
