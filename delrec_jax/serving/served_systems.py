"""The systems that can be asked, made of the parts of a workdir or of a shared folder; each is loaded when first asked."""

from functools import cache, cached_property

from delrec_jax.data.splits import Split
from delrec_jax.errors import UserError
from delrec_jax.serving.listing import ListingSystem
from delrec_jax.serving.parts import Parts
from delrec_jax.workdir import recommenders
from delrec_jax.workdir.conventional_system import ConventionalSystem
from delrec_jax.workdir.hybrids import Hybrid
from delrec_jax.workdir.language_scorer import CatalogueSystem, LanguageScorer
from delrec_jax.workdir.spread_scores import spread_over
from delrec_jax.workdir.systems import System


class Answering:
    """The systems of one place."""

    def __init__(self, parts: Parts):
        """Loads nothing yet."""
        self._parts = parts
        self._teacher = cache(parts.teacher)
        self.language_system = cache(parts.language_system)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What can be asked, the conventional recommenders first, hybrids last."""
        found = (*self._parts.conventional, *self._parts.prompted)
        hybrids = self._parts.hybrids.items()
        return (*found, *(name for name, weights in hybrids if set(weights) <= {*found}))

    def system(self, name: str, split: Split) -> System:
        """Returns a system that answers the histories of a split.

        Raises:
          UserError: there is none of this name.
        """
        if name not in self.names:
            raise UserError(
                f"no system {name!r} in {self._parts.place}: ask {', '.join(self.names)}"
            )
        if name in self._parts.hybrids:
            weights = self._parts.hybrids[name]
            parts = {part: self.system(part, split) for part, weight in weights.items() if weight}
            return Hybrid(split, parts, {part: weights[part] for part in parts})
        config = self._parts.experiment
        if name not in self._parts.prompted:
            teacher, longest = self._teacher(name)
            return ConventionalSystem(teacher, split, longest, spread_over(config))
        if self.scorer.ranks_catalogue:
            return CatalogueSystem(self.scorer, self.language_system(name), split)
        unseen = self._parts.catalogue.num_items - int(split.seen_counts("test").max())
        return ListingSystem(
            self.scorer,
            self.language_system(name),
            split,
            source=self.system(recommenders.distilled_cell(config).system, split),
            most=min(self.listed, unseen),
            seed=config.candidates.seed,
            why=f"lm.verbalizer={config.lm.verbalizer}, prompts.show_candidates={config.prompts.show_candidates}",
        )

    def readers(self, name: str) -> tuple[str, ...]:
        """The language systems among a system and its parts."""
        parts = self._parts.hybrids.get(name, {name: 1.0})
        return tuple(
            part for part, weight in parts.items() if weight and part in self._parts.prompted
        )

    @property
    def ranks_catalogue(self) -> bool:
        """Whether language systems rank the whole catalogue, and not stated candidates only."""
        return self.scorer.ranks_catalogue

    @property
    def listed(self) -> int:
        """How many of the teacher's best items are stated where language systems rank stated candidates only."""
        return self._parts.experiment.candidates.rerank

    @cached_property
    def scorer(self) -> LanguageScorer:
        """What scores texts."""
        return LanguageScorer(self._parts.language)
