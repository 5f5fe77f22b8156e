"""Benchmarks: the speed and memory of each part, and the reference that each is compared with."""
