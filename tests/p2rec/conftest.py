"""Tiny T5s of both kinds."""

from tiny_t5 import either, gated, v10

__all__ = ["either", "gated", "v10"]  # fixtures
