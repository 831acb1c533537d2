"""The mixer's state: what predict and learn read and change, and its values before a frame."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from llmzip.jit import inlined, unowned
from llmzip.mixing.bit_history import COUNT_BITS, STATES, history_tables, learning_rate_table
from llmzip.mixing.initial_state import InitialState
from llmzip.mixing.layout import (
    APM_ENTRIES,
    BYTE_CONTEXTS,
    CONTEXTS,
    CONTEXTS_WITHOUT_MODEL,
    FINAL_WEIGHT_SETS,
    INPUTS,
    INPUTS_OF_BYTES,
    MATCHES,
    MODEL_APMS,
    SELECTORS,
    SELECTORS_WITHOUT_MODEL,
    STORED_BITS,
    TOKEN_CONTEXTS,
    WEIGHT_BITS,
)
from llmzip.mixing.logistic import APM_STEP_BITS, FINE_BITS, LIMIT, STRETCH_BITS, squash_table, stretch_table
from llmzip.mixing.match import MATCH_STATES
from llmzip.mixing.slots import new_slots
from llmzip.mixing.trace import new_trace

HASHED_APMS = 1 << 12
INITIAL_COUNT = 30  # observations that the pretrained initial state counts for

# Everything of a fixed size but weights and inputs, as one record: it is passed by one pointer.
CORE = np.dtype(
    [
        ("stretch", np.int16, (1 << 16,)),  # by probability
        ("stretch_few", np.int16, (1 << STRETCH_BITS,)),
        ("squash", np.int32, (2 * LIMIT + 1,)),  # by stretched probability + LIMIT
        ("learning_rates", np.int32, (1 << COUNT_BITS,)),
        ("successors", np.uint8, (STATES, 2)),
        ("histories", np.uint32, (CONTEXTS, STATES)),  # adaptive probabilities
        ("matches", np.uint32, (MATCHES, MATCH_STATES)),  # adaptive probabilities that the expected bit comes
        ("final_weights", np.int32, (FINAL_WEIGHT_SETS, SELECTORS)),  # WEIGHT_BITS after the point
        ("model_apms", np.int32, (MODEL_APMS * STATES, APM_ENTRIES)),  # FINE_BITS
        ("hashed_apms", np.int32, (HASHED_APMS, APM_ENTRIES)),  # FINE_BITS, by what is known of the byte and two before
        ("contexts", np.int64),  # in use, from the first
        ("width", np.int64),  # inputs in use
        ("selectors", np.int64),  # weight sets in use at a time
        # The contexts of the current byte and token:
        ("bytes", np.int64, (BYTE_CONTEXTS,)),  # hashes
        ("tokens", np.int64, (TOKEN_CONTEXTS,)),
        ("guess", np.int64),  # the likeliest token
        ("block", np.int64),  # the block of decisions whose slots the token contexts have
        ("part", np.int64),  # the part of a byte whose slots the byte contexts have
        ("slot_bases", np.int64, (CONTEXTS,)),  # where the slots of a context are
        ("checks", np.int64, (CONTEXTS,)),
        ("slot_offsets", np.int64, (CONTEXTS,)),  # where the current ones begin
        # From predict to learn:
        ("history_offsets", np.int64, (CONTEXTS,)),  # where the bit histories are
        ("history_states", np.uint8, (CONTEXTS,)),  # the bit histories
        ("match_states", np.int64, (MATCHES,)),  # -1 for none
        ("guesses", np.int64, (MATCHES,)),  # bits
        ("weight_sets", np.int64, (SELECTORS,)),
        ("predictions", np.int64, (SELECTORS,)),  # of the sets, stretched
        ("final_weight_set", np.int64),
        ("mixed", np.int64),  # the result before the last maps, stretched
        ("apm_rows", np.int64, (MODEL_APMS,)),
        ("hashed_row", np.int64),
        ("model", np.int64),  # the language model's probability, stretched
        ("traced", np.int64),  # decisions
        ("frozen", np.int64),  # whether nothing learns but the bit histories
    ],
    align=True,
)


class Mixer(NamedTuple):
    """The adaptive state of a frame.

    Attributes:
        core: CORE[1].
        slots: uint8[contexts * n * SLOT_BYTES], see :mod:`llmzip.mixing.slots`.
        weights: int32[WEIGHT_SETS, INPUTS], WEIGHT_BITS after the point.
        inputs: int32[INPUTS], stretched.
        apms: int32[2 (V - 1), APM_ENTRIES], FINE_BITS, two for each node: of the model's probability, of the result.
        trace: DECISION[n], see :mod:`llmzip.mixing.trace`; usually empty.
    """

    core: npt.NDArray[np.void]
    slots: npt.NDArray[np.uint8]
    weights: npt.NDArray[np.int32]
    inputs: npt.NDArray[np.int32]
    apms: npt.NDArray[np.int32]
    trace: npt.NDArray[np.void]


def new_mixer(nodes: int, size: int, initial_state: InitialState, *, model: bool, traced: int = 0) -> Mixer:
    """Return the state before a frame.

    Args:
        nodes: of the tree.
        size: of the frame, in bytes.
        initial_state: the pretrained initial state.
        model: whether there is a language model.
        traced: the number of decisions to record.
    """
    core, weights, apms = _initial(nodes, initial_state, model)
    slots = new_slots(CONTEXTS if model else CONTEXTS_WITHOUT_MODEL, size)
    return Mixer(core.copy(), slots, weights.copy(), _new_inputs(), apms.copy(), new_trace(traced))


def _new_inputs() -> npt.NDArray[np.int32]:
    """Return inputs of which only the first, a constant, is set."""
    inputs = np.zeros(INPUTS, np.int32)
    inputs[0] = 256
    return inputs


@functools.lru_cache(maxsize=4)
def _initial(nodes: int, initial_state: InitialState, model: bool) -> tuple[npt.NDArray[Any], ...]:
    """Return core, weights and APMs before a frame, which are the same before each: copied, not made again."""
    core = np.zeros(1, CORE)
    one = core[0]
    squash = squash_table()
    one["squash"] = squash
    one["stretch"] = stretch_table(squash)
    one["stretch_few"] = one["stretch"][(1 << (15 - STRETCH_BITS)) :: 1 << (16 - STRETCH_BITS)]
    one["learning_rates"] = learning_rate_table()
    one["successors"] = history_tables()[0]
    one["histories"] = initial_state.histories.astype(np.uint32) << 16 | INITIAL_COUNT
    one["matches"] = initial_state.matches.astype(np.uint32) << 16 | INITIAL_COUNT
    one["final_weights"] = initial_state.final_weights.astype(np.int32) << (WEIGHT_BITS - STORED_BITS)
    one["model_apms"] = initial_state.model_apms.astype(np.int32) << (FINE_BITS - 16)
    x = np.clip((np.arange(APM_ENTRIES) << APM_STEP_BITS) - LIMIT - 1, -LIMIT, LIMIT)
    identity = squash[x + LIMIT] << (FINE_BITS - 16)
    one["hashed_apms"] = identity
    one["contexts"] = CONTEXTS if model else CONTEXTS_WITHOUT_MODEL
    one["width"] = INPUTS if model else INPUTS_OF_BYTES
    one["selectors"] = SELECTORS if model else SELECTORS_WITHOUT_MODEL
    weights = initial_state.weights.astype(np.int32) << (WEIGHT_BITS - STORED_BITS)
    return core, weights, np.repeat(identity[None], 2 * nodes, axis=0)


def frozen_mixer(initial_state: InitialState) -> Mixer:
    """Return a mixer that learns nothing, for short texts with a language model; each brings slots of its own."""
    core, weights, apms = _initial(0, initial_state, True)
    mixer = Mixer(core.copy(), np.zeros(0, np.uint8), weights, _new_inputs(), apms, new_trace(0))
    mixer.core[0]["frozen"] = 1
    return mixer


def to_initial_state(mixer: Mixer) -> InitialState:
    """Return the present state as an initial state."""
    one = mixer.core[0]
    return InitialState(
        (mixer.weights >> (WEIGHT_BITS - STORED_BITS)).astype(np.int16),
        (one["final_weights"] >> (WEIGHT_BITS - STORED_BITS)).astype(np.int16),
        (one["histories"] >> 16).astype(np.uint16),
        (one["matches"] >> 16).astype(np.uint16),
        (one["model_apms"] >> (FINE_BITS - 16)).astype(np.uint16),
    )


@inlined
def borrowed(mixer):
    """Return the mixer with arrays without owners, for kernels."""
    return Mixer(
        unowned(mixer.core),
        unowned(mixer.slots),
        unowned(mixer.weights),
        unowned(mixer.inputs),
        unowned(mixer.apms),
        unowned(mixer.trace),
    )
