import numpy as np
from texts import words

from llmzip.coding import range_coder, token_kernels
from llmzip.coding.byte_coder import ByteCoder
from llmzip.mixing.logistic import LIMIT, squash_table
from llmzip.model import registry

TEXT = words(60)


def _coded(room: int):
    """Return the mixer and payload of TEXT coded without a model, with a trace of `room` decisions."""
    plain = ByteCoder(registry.initial_state_for_bytes()[0])
    frame = plain.begin_frame(len(TEXT), traced=room)
    coder, out = range_coder.new_encoder(), np.zeros(4 * len(TEXT), np.uint8)
    token_kernels.encode_bytes(np.frombuffer(TEXT, np.uint8).copy(), plain.tree, frame, coder, out)
    return frame.mixer, out[: int(range_coder.finish(coder, out))].tobytes(), plain


def test_a_trace_changes_no_byte_and_ends_where_its_room_ends():
    (short, payload, plain), (none, same, _) = _coded(100), _coded(0)
    assert payload == same == plain.encode(TEXT)
    assert (short.core[0]["traced"], none.core[0]["traced"]) == (100, 0)
    whole, _, _ = _coded(10**5)
    assert np.array_equal(short.trace, whole.trace[:100])


def test_the_decisions_of_bytes_are_their_bits_and_cost_the_payload():
    mixer, payload, _ = _coded(10**5)
    trace = mixer.trace[: mixer.core[0]["traced"]]
    assert np.packbits(trace["bit"]).tobytes() == TEXT
    assert not trace["ending"].any()
    assert not trace["model"].any()
    p = np.where(trace["bit"], trace["p"], 65536 - trace["p"]) / 65536
    assert abs(-np.log2(p).sum() / 8 - len(payload)) < 5


def test_contributions_add_up_to_what_was_mixed():
    mixer, _, _ = _coded(10**5)
    trace = mixer.trace[: mixer.core[0]["traced"]]
    mixed = squash_table()[np.clip(trace["contributions"].sum(1), -LIMIT, LIMIT) + LIMIT]
    # The last APMs move the result a little, and a weight set's prediction is clipped.
    assert np.abs(mixed - trace["p"]).mean() < 0.02 * 65536
    assert not trace["contributions"][:, 3].any()
    assert trace["contributions"][:, 2].any()
