"""Exact inference: the network in integers and correctly rounded float32 steps."""
