import numpy as np
import pytest

from llmzip.mixing.layout import MODEL_BYTES, SLOT_BITS, SLOT_BYTES, needed, slots_for
from llmzip.mixing.slots import find, new_slots, slot_offset


def test_a_context_finds_its_slot_again():
    slots = new_slots(2, 100)
    at = find(slot_offset(1, 2, 0x1234567, slots), np.uint8(0x67), slots)
    slots[at + 1] = 9
    assert find(slot_offset(1, 2, 0x1234567, slots), np.uint8(0x67), slots) == at
    assert slots[at + 1] == 9


def test_contexts_have_slots_of_their_own():
    slots = new_slots(3, 100)
    places = [slot_offset(context, 3, 0xFFFFFF00, slots) for context in range(3)]
    assert len({place * 3 // len(slots) for place in places}) == 3


def test_the_least_known_of_three_gives_way():
    slots = new_slots(1, 100)
    taken = []
    for check, known in ((1, 5), (2, 2), (3, 7)):
        taken.append(find(0, np.uint8(check), slots))
        slots[taken[-1] + 1] = known
    assert sorted(taken) == [0, SLOT_BYTES, 2 * SLOT_BYTES]
    assert find(0, np.uint8(4), slots) == taken[1]
    assert slots[taken[1] + 1] == 0


@pytest.mark.parametrize("size", [0, 1, 1000, 1 << 20, 1 << 24, (1 << 24) + 1, 1 << 25, 1 << 26])
def test_memory_is_bounded_whatever_the_frame(size):
    assert needed(size, model=MODEL_BYTES) < 1_000_000_000
    assert slots_for(size) <= 1 << SLOT_BITS[1]
    assert slots_for(size) & (slots_for(size) - 1) == 0


@pytest.mark.parametrize("value", [0, 255, 0xFFFFFFFF, 0x80000000])
def test_every_place_and_its_neighbours_are_inside(value):
    slots = new_slots(2, 10)
    for context in range(2):
        place = slot_offset(context, 2, value, slots)
        for part in range(8):
            assert 0 <= find(place ^ (part * SLOT_BYTES), np.uint8(value & 255), slots) <= len(slots) - SLOT_BYTES
