"""A text of several small frames, for tests of archives with more than one."""

from texts import words

FRAME = 1024
TEXT = words(1500)[: 5 * FRAME + 100]  # six frames
