"""Token mixers other than the gated recurrence."""
