"""One small shape of each network for all tests that hold for every network: a new one is added here alone."""

from dataclasses import replace

from delrec_jax.teachers.caser import CaserConfig
from delrec_jax.teachers.gru4rec import GRU4RecConfig
from delrec_jax.teachers.sasrec import SASRecConfig

LENGTH = 8
SHAPES = {
    "sasrec": SASRecConfig(width=16, layers=2, heads=2, max_length=LENGTH, dropout=0.2),
    "gru4rec": GRU4RecConfig(width=12, hidden=16, layers=2, max_length=LENGTH, dropout=0.2),
    "caser": CaserConfig(width=12, window=4, horizontal=6, vertical=2, max_length=LENGTH),
}


def shapes(**changes):
    """The same shapes with other values of what every network has: `width`, `max_length`, `dropout`."""
    return {name: replace(shape, **changes) for name, shape in SHAPES.items()}
