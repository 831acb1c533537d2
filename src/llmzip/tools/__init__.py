"""The library halves of bench, inspect, generate and doctor."""
