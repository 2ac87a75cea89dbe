"""Reads back what `prepare` stored in the workdir: the corpus, its one split, and the candidates."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from delrec_jax.data import splits
from delrec_jax.data.candidates import CandidateSet, load_candidates
from delrec_jax.data.corpora import load_corpus
from delrec_jax.data.corpora.storefront_world import World, make_world
from delrec_jax.data.interactions import Corpus
from delrec_jax.data.split_files import load_split
from delrec_jax.data.splits import Part, Split
from delrec_jax.errors import UserError
from delrec_jax.workdir.workspace import Workspace


@dataclass(frozen=True)
class Data:
    """The corpus, its one split, and the stored candidates.

    Attributes:
      world: the rules that generated the storefront, for the oracle; None for real data.
      candidates: by part, `valid` and `test`.
    """

    corpus: Corpus
    split: Split
    candidates: Mapping[Part, CandidateSet]
    world: World | None

    @property
    def num_items(self) -> int:
        """Size of the catalogue."""
        return self.corpus.catalogue.num_items


def load_data(ws: Workspace) -> Data:
    """Reads what `prepare` stored.

    Raises:
      UserError: a file is missing or damaged, or the candidates belong to another split.
    """
    folder, config = ws.folder("prepare"), ws.experiment.data
    corpus = load_corpus(folder / "corpus")
    sets = {part: load_candidates(folder / f"candidates_{part}.npz") for part in splits.PARTS}
    world = make_world(config.storefront, config.seed) if config.corpus == "storefront" else None
    split = load_split(folder / "split.npz", corpus.interactions)
    for part, stored in sets.items():
        if not np.array_equal(stored.users, split.users(part)):
            raise UserError(
                f"{folder / f'candidates_{part}.npz'}: its users are not those of split.npz; delete {folder} and run "
                "`delrec prepare` again"
            )
    return Data(corpus, split, sets, world)
