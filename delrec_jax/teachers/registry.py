"""The teachers by name."""

from collections.abc import Mapping
from typing import Any

from delrec_jax.teachers.caser import Caser
from delrec_jax.teachers.gru4rec import GRU4Rec
from delrec_jax.teachers.sasrec import SASRec

NETWORKS: Mapping[str, type[Any]] = {"sasrec": SASRec, "gru4rec": GRU4Rec, "caser": Caser}
"""Teachers that are trained; popularity only counts."""

DISPLAY_NAMES = {
    "sasrec": "SASRec",
    "gru4rec": "GRU4Rec",
    "caser": "Caser",
    "popularity": "popularity",
}
"""What a teacher is called in prompts and tables."""
