"""Context mixing: at every decision the predictions of the language model and of this file's contexts are combined.

Each *context* looks up its bit history of the decision in a small slot, and the probability that usually follows
such a history. These predictions, those of the match models and those of the language model are stretched, weighted
and added by several weight sets, each selected by a small context of its own; a final weight set mixes the sums. Two
APMs correct systematic errors of the result. Everything learns from the bit that was coded (the PAQ family, Mahoney
2005; lpaq; ZPAQ).

Everything is an integer. All lanes of a frame share the state and use it in the order of coding.
"""

from __future__ import annotations

import numpy as np

from llmzip.jit import inlined
from llmzip.mixing.bit_history import STATES, adapted
from llmzip.mixing.contexts import byte_contexts, mixed_hash
from llmzip.mixing.layout import (
    APM_ENTRIES,
    CONTEXT_INPUTS,
    CONTEXTS,
    MATCH_INPUTS,
    MATCHES,
    MODEL_APMS,
    MODEL_INPUTS,
    SLOT_BYTES,
    TOKEN_CONTEXTS,
    WEIGHT_BITS,
    WEIGHT_SET_STARTS,
)
from llmzip.mixing.logistic import (
    APM_STEP_BITS,
    FINE_BITS,
    LIMIT,
    STRETCH_BITS,
    apm_refine,
    apm_update,
)
from llmzip.mixing.match import state_of_match
from llmzip.mixing.simd import PRODUCT_SHIFT, adjust, dot, prefetch
from llmzip.mixing.slots import NEIGHBOURHOOD, find, slot_offset
from llmzip.mixing.state import HASHED_APMS
from llmzip.vocabulary.tree import BLOCK, END

WEIGHT_MAX = (8 << WEIGHT_BITS) - 1  # the product with an input stays below 2^31
SMALL_ERROR = 48  # 2^-16; weights that are as right as this are left alone
WEIGHT_LEARNING_RATE = 24  # of learning, in sixteenths
FINAL_SHIFT = 18  # of learning of the last set

HISTORY_LIMIT = 500
MATCH_LIMIT = 255


@inlined
def begin_token(guess, lane, mixer):
    """Prepare for a token of `lane`; `guess` is the language model's likeliest token, -1 without one."""
    core = mixer.core[0]
    core["guess"] = guess
    core["tokens"][0] = guess + 1
    value = np.int64(0)
    for k in range(1, TOKEN_CONTEXTS):
        value = mixed_hash(value, lane["previous"][k - 1] + 2)
        core["tokens"][k] = value
    core["block"] = -1
    core["part"] = -1
    lane["fresh"] = 0  # other lanes have written their contexts since


@inlined
def seek_block(block, mixer):
    """Prefetch the token contexts' slots for a block of the tree's decisions."""
    core, slots = mixer.core[0], mixer.slots
    core["block"] = block
    for i in range(TOKEN_CONTEXTS):
        value = mixed_hash(core["tokens"][i], block)
        core["slot_offsets"][i] = slot_offset(i, core["contexts"], value, slots)
        core["checks"][i] = value & 255
        prefetch(slots, core["slot_offsets"][i])


@inlined
def seek_part(part, lane, buffer, mixer):
    """Prefetch the byte contexts' slots for a part of a byte.

    That is 1 for its first half, 16 + that half for its second, 0 for END. The slots of all are neighbours.
    """
    core, slots = mixer.core[0], mixer.slots
    core["part"] = part
    if lane["fresh"] == 0:
        byte_contexts(lane, buffer, core["contexts"] == CONTEXTS, core["bytes"])
        for i in range(TOKEN_CONTEXTS, core["contexts"]):
            base = slot_offset(i, core["contexts"], core["bytes"][i - TOKEN_CONTEXTS], slots)
            core["slot_bases"][i] = base
            prefetch(slots, base)
            prefetch(slots, base ^ (NEIGHBOURHOOD + 1) // 2 * SLOT_BYTES)


@inlined
def find_block(mixer):
    """Find the token contexts' slots that were prefetched."""
    core = mixer.core[0]
    for i in range(TOKEN_CONTEXTS):
        core["slot_offsets"][i] = find(core["slot_offsets"][i], np.uint8(core["checks"][i]), mixer.slots)


@inlined
def find_part(part, mixer):
    """Find the byte contexts' slots that were prefetched."""
    core = mixer.core[0]
    near = (part & NEIGHBOURHOOD) * SLOT_BYTES
    for i in range(TOKEN_CONTEXTS, core["contexts"]):
        check = np.uint8((core["bytes"][i - TOKEN_CONTEXTS] + part * 29) & 255)
        core["slot_offsets"][i] = find(core["slot_bases"][i] ^ near, check, mixer.slots)


@inlined
def add_context_inputs(decision, lane, buffer, mixer):
    """Write the contexts' predictions of a decision into the inputs."""
    core, inputs = mixer.core[0], mixer.inputs
    node_index, bit, partial = decision.node_index, decision.bit, decision.partial
    if bit == END:
        part = np.int64(0)
        cell = min(decision.depth, 15)
    elif bit < 4:
        part = np.int64(1)
        cell = partial
    else:
        part = partial >> (bit - 4)
        cell = (partial & ((1 << (bit - 4)) - 1)) | (1 << (bit - 4))
    new_block, new_part = node_index // BLOCK != core["block"], part != core["part"]
    if new_block:
        seek_block(node_index // BLOCK, mixer)
    if new_part:
        seek_part(part, lane, buffer, mixer)
    if new_block:
        find_block(mixer)
    if new_part:
        find_part(part, mixer)
    for i in range(TOKEN_CONTEXTS):
        core["history_offsets"][i] = core["slot_offsets"][i] + (node_index & (BLOCK - 1))
    for i in range(TOKEN_CONTEXTS, core["contexts"]):
        core["history_offsets"][i] = core["slot_offsets"][i] + cell
    for i in range(core["contexts"]):
        history = mixer.slots[core["history_offsets"][i]]
        core["history_states"][i] = history
        entry = np.int64(core["histories"][i, history])
        inputs[CONTEXT_INPUTS + 2 * i] = core["stretch_few"][entry >> (32 - STRETCH_BITS)]
        inputs[CONTEXT_INPUTS + 2 * i + 1] = ((entry >> 16) - 32768) >> 4


@inlined
def add_match_inputs(decision, lane, mixer):
    """Write the match models' predictions into the inputs; return 0 .. 14 for the best of them, 0 for none."""
    core, inputs = mixer.core[0], mixer.inputs
    bit, partial = decision.bit, decision.partial
    best = np.int64(0)
    for m in range(MATCHES):
        core["match_states"][m] = -1
        inputs[MATCH_INPUTS + 2 * m] = 0
        inputs[MATCH_INPUTS + 2 * m + 1] = 0
        expected = lane["expected"][m]
        if expected < 0 or (bit != END and ((expected & 255) | 256) >> (8 - bit) != partial):
            continue
        guess = (
            1 - (expected >> 8) if bit == END else (expected >> (7 - bit)) & 1
        )  # END's bit 0 ends the token: the next byte begins one
        state, strength = state_of_match(lane, m, bit == END, guess)
        core["match_states"][m] = state
        core["guesses"][m] = guess
        p = np.int64(core["matches"][m, state])
        sign = 2 * guess - 1
        inputs[MATCH_INPUTS + 2 * m] = sign * core["stretch_few"][p >> (32 - STRETCH_BITS)]
        inputs[MATCH_INPUTS + 2 * m + 1] = sign * (((p >> 16) - 32768) >> 4)
        if best == 0:
            best = 1 + strength + 7 * guess
    return best


@inlined
def add_model_inputs(p1, node, mixer):
    """Write the language model's prediction, as it is and refined by APMs, into the inputs; return it in 16 steps."""
    core, inputs = mixer.core[0], mixer.inputs
    x = np.int64(core["stretch"][p1])
    core["model"] = x
    core["apm_rows"][0] = core["history_states"][1]
    core["apm_rows"][1] = STATES + np.int64(core["history_states"][CONTEXTS - 1])
    inputs[MODEL_INPUTS] = x
    for k in range(MODEL_APMS):
        p = apm_refine(core["model_apms"], core["apm_rows"][k], x)
        inputs[MODEL_INPUTS + 1 + k] = core["stretch"][p >> (FINE_BITS - 16)]
    if core["frozen"] != 0:  # an APM that has learned nothing
        inputs[MODEL_INPUTS + 3] = x
    else:
        p = apm_refine(mixer.apms, 2 * node, x)
        inputs[MODEL_INPUTS + 3] = core["stretch"][p >> (FINE_BITS - 16)]
    return min((x + LIMIT + 1) >> APM_STEP_BITS, 15)


@inlined
def predict(p1, node, decision, lane, buffer, mixer):
    """Return the probability, 1 .. 65535, that the decision of `node` gives 1.

    Args:
        p1: the language model's probability, 0 if there is none.
        node: the number of the decision's node.
        decision: Decision.
        lane, buffer, mixer: the lane's record, and both borrowed.
    """
    core, weights, inputs = mixer.core[0], mixer.weights, mixer.inputs
    bit, partial = decision.bit, decision.partial
    kind = 256 + min(decision.depth, 15) if bit == END else partial
    row = mixed_hash(lane["last4"] & 0xFFFF, kind) & (HASHED_APMS - 1)
    core["hashed_row"] = row
    # Where in their rows the APMs are read is known only after mixing: a row touches two cache lines.
    if core["frozen"] == 0:
        for end in (0, APM_ENTRIES - 1):
            prefetch(core["hashed_apms"], row * APM_ENTRIES + end)
            prefetch(mixer.apms, (2 * node + 1) * APM_ENTRIES + end)
    add_context_inputs(decision, lane, buffer, mixer)
    best = add_match_inputs(decision, lane, mixer)
    confidence = add_model_inputs(p1, node, mixer) if p1 > 0 else np.int64(0)
    known = np.int64(0)
    for i in range(1, 8):
        known += 1 if core["history_states"][i] > 0 else 0
    core["weight_sets"][0] = WEIGHT_SET_STARTS[0] + best * 16 + confidence
    core["weight_sets"][1] = WEIGHT_SET_STARTS[1] + kind
    core["weight_sets"][2] = WEIGHT_SET_STARTS[2] + known * 16 + confidence
    core["weight_sets"][3] = WEIGHT_SET_STARTS[3] + (lane["last4"] & 255) + (256 if bit == END else 0)
    core["weight_sets"][4] = (
        WEIGHT_SET_STARTS[4] + (mixed_hash(lane["previous"][0] + 2, 7) & 255) + (256 if bit == END else 0)
    )
    core["weight_sets"][5] = (
        WEIGHT_SET_STARTS[5] + (mixed_hash(core["guess"] + 2, 7) & 127) + (128 if bit == END else 0)
    )
    core["final_weight_set"] = kind
    total = np.int64(0)
    for k in range(core["selectors"]):
        prediction = dot(weights, core["weight_sets"][k], inputs, core["width"]) >> (WEIGHT_BITS - PRODUCT_SHIFT)
        prediction = min(max(prediction, -LIMIT), LIMIT)
        core["predictions"][k] = prediction
        total += prediction * np.int64(core["final_weights"][kind, k])
    mixed = min(max(total >> WEIGHT_BITS, -LIMIT), LIMIT)
    core["mixed"] = mixed
    if core["frozen"] != 0:
        return min(max(np.int64(core["squash"][mixed + LIMIT]), 1), 65535)
    corrections = apm_refine(mixer.apms, 2 * node + 1, mixed) + apm_refine(core["hashed_apms"], row, mixed)
    p = (2 * np.int64(core["squash"][mixed + LIMIT]) + (corrections >> (FINE_BITS - 16))) >> 2
    return min(max(p, 1), 65535)


@inlined
def learn(bit, p1, node, mixer):
    """Adapt everything that the last call of predict used to the `bit` that was coded."""
    core, weights, inputs = mixer.core[0], mixer.weights, mixer.inputs
    if core["frozen"] != 0:
        for i in range(core["contexts"]):
            mixer.slots[core["history_offsets"][i]] = core["successors"][core["history_states"][i], bit]
        return
    mixed, kind = core["mixed"], core["final_weight_set"]
    error = (bit << 16) - np.int64(core["squash"][mixed + LIMIT])
    for k in range(core["selectors"]):
        prediction = core["predictions"][k]
        change = (prediction * error + (1 << (FINAL_SHIFT - 1))) >> FINAL_SHIFT
        core["final_weights"][kind, k] = min(max(core["final_weights"][kind, k] + change, -WEIGHT_MAX), WEIGHT_MAX)
        own = (((bit << 16) - np.int64(core["squash"][prediction + LIMIT])) * WEIGHT_LEARNING_RATE) >> 4
        if own >= SMALL_ERROR or own <= -SMALL_ERROR:
            adjust(weights, core["weight_sets"][k], inputs, core["width"], own, WEIGHT_MAX)
    for i in range(core["contexts"]):
        history = core["history_states"][i]
        entry = np.int64(core["histories"][i, history])
        core["histories"][i, history] = adapted(entry, bit, core["learning_rates"], HISTORY_LIMIT)
        mixer.slots[core["history_offsets"][i]] = core["successors"][history, bit]
    for m in range(MATCHES):
        state = core["match_states"][m]
        if state >= 0:
            came = 1 if core["guesses"][m] == bit else 0
            entry = np.int64(core["matches"][m, state])
            core["matches"][m, state] = adapted(entry, came, core["learning_rates"], MATCH_LIMIT)
    if p1 > 0:
        apm_update(mixer.apms, 2 * node, core["model"], bit)
        for k in range(MODEL_APMS):
            apm_update(core["model_apms"], core["apm_rows"][k], core["model"], bit)
    apm_update(mixer.apms, 2 * node + 1, mixed, bit)
    apm_update(core["hashed_apms"], core["hashed_row"], mixed, bit)
