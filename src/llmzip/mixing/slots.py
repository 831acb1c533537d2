"""Slots: where contexts keep their bit histories, in tables that cannot grow.

A slot has 16 bytes: a check of the context's hash, then the bit histories of up to 15 decisions, which are met
one after the other: the first or second half of a byte, or a block of the vocabulary's tree. A context finds
its slot, or one of two neighbours, by its check; otherwise it takes over the least known of the three.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from llmzip.jit import inlined
from llmzip.mixing.layout import SLOT_BYTES, slots_for

NEIGHBOURHOOD = 7  # slots for the parts of one byte differ in these bits of their number: one or two cache lines


def new_slots(contexts: int, size: int) -> npt.NDArray[np.uint8]:
    """Return the empty slots of all contexts, uint8[contexts * slots_for(size) * SLOT_BYTES]."""
    return np.zeros(contexts * slots_for(size) * SLOT_BYTES, np.uint8)


@inlined
def slot_offset(context, contexts, value, slots):
    """Return the offset in `slots` for the hash `value` of a context, one of `contexts`."""
    count = len(slots) // (contexts * SLOT_BYTES)
    return (context * count + ((value >> 8) & (count - 1))) * SLOT_BYTES


@inlined
def find(offset, check, slots):
    """Return where the slot with the `check` (uint8) near `offset` begins; another's is emptied if need be."""
    worst, worst_rank = np.int64(0), np.int64(1 << 30)
    for k in range(3):
        at = offset ^ (k * SLOT_BYTES)
        if slots[at] == check:
            return at
        # Histories are numbered by what they know, and every slot's use begins with one of the first decisions.
        rank = max(np.int64(slots[at + 1]), max(np.int64(slots[at + 2]), np.int64(slots[at + 3])))
        if rank < worst_rank:
            worst, worst_rank = at, rank
    for k in range(SLOT_BYTES):
        slots[worst + k] = 0
    slots[worst] = check
    return worst
