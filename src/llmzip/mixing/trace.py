"""The trace: what each predictor contributed to each decision, recorded by the kernel that codes.

Usually a frame's mixer has an empty trace, which costs one comparison per decision.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from llmzip.jit import inlined
from llmzip.mixing.layout import CONTEXT_INPUTS, INPUTS, MATCH_INPUTS, MODEL_INPUTS, WEIGHT_BITS

PREDICTORS = ("constant", "matches", "contexts", "model")
PREDICTOR_STARTS = (0, MATCH_INPUTS, CONTEXT_INPUTS, MODEL_INPUTS, INPUTS)  # the inputs of each

# A decision. A predictor's contribution is what its weighted inputs add to the stretched probability.
DECISION = np.dtype(
    [
        ("ending", np.uint8),  # whether it was about the end of a token
        ("bit", np.uint8),  # that was coded
        ("p", np.int32),  # that bit 1 comes, as coded, in 2^-16
        ("model", np.int32),  # the same by the language model alone; 0 if there is none
        ("contributions", np.int32, (len(PREDICTORS),)),  # log2 of odds for bit 1, in 2^-8
    ],
    align=True,
)


def new_trace(decisions: int) -> npt.NDArray[np.void]:
    """Return a trace with room for `decisions` decisions; later ones are not recorded."""
    return np.zeros(decisions, DECISION)


@inlined
def trace_decision(p1, p, bit, ending, mixer):
    """Record a decision, before the mixer learns from it; arguments as for mixing.predict, which gave `p`."""
    core, weights, inputs = mixer.core[0], mixer.weights, mixer.inputs
    row = mixer.trace[core["traced"]]
    core["traced"] += 1
    row["ending"], row["bit"], row["p"], row["model"] = ending, bit, p, p1
    for v in range(len(PREDICTORS)):
        contribution = np.int64(0)
        for i in range(PREDICTOR_STARTS[v], PREDICTOR_STARTS[v + 1]):
            weight = np.int64(0)
            for k in range(core["selectors"]):
                weight += np.int64(weights[core["weight_sets"][k], i]) * np.int64(
                    core["final_weights"][core["final_weight_set"], k]
                )
            contribution += (weight >> WEIGHT_BITS) * np.int64(inputs[i])
        row["contributions"][v] = contribution >> WEIGHT_BITS
