"""TFDS builder of the embedded storefront, a generated corpus."""

import dataclasses

from delrec_jax.data.corpora.builder import SequenceCorpusBuilder
from delrec_jax.data.corpora.storefront_world import (
    StorefrontConfig,
    make_world,
    sample_interactions,
)
from delrec_jax.data.interactions import Corpus


@dataclasses.dataclass(frozen=True)
class StorefrontSettings:
    """A world's configuration and seed, from which `make_world` rebuilds it without reading rows."""

    config: StorefrontConfig
    seed: int


class StorefrontCorpus(SequenceCorpusBuilder[StorefrontSettings]):
    """Rows drawn from a storefront; the entire catalogue is kept, including items that no one bought."""

    def parse(self) -> Corpus:
        """Draws the rows; nothing is ever dropped."""
        world = make_world(self.settings.config, self.settings.seed)
        return Corpus("storefront", world.catalogue, sample_interactions(world), {})
