"""The systems of a finished workdir that answer any history, by their names in the results.

A system is loaded when it is first asked, and kept. Left out are those that know only the histories of their own users:
`teacher.name=lists`, and hybrids with it.
"""

from collections.abc import Mapping
from functools import cache, cached_property

from delrec_jax.data.splits import Split
from delrec_jax.delrec import systems as language_systems
from delrec_jax.delrec.guides import Guides, make_guides
from delrec_jax.errors import UserError
from delrec_jax.p2rec.cells import cells
from delrec_jax.serving.listing import ListingSystem
from delrec_jax.stages.inputs import Inputs
from delrec_jax.teachers.protocol import Teacher
from delrec_jax.teachers.registry import LISTS, closed_form
from delrec_jax.workdir import recommenders
from delrec_jax.workdir.closed_forms import Choice, chosen, fitted, training_part
from delrec_jax.workdir.hybrids import Hybrid
from delrec_jax.workdir.language_scorer import CatalogueSystem, LanguageScorer, LanguageSystem
from delrec_jax.workdir.recommenders import AUGMENTED, PLAIN, Cell, ConventionalSystem
from delrec_jax.workdir.spread_scores import spread_over
from delrec_jax.workdir.systems import System
from delrec_jax.workdir.workspace import Workspace, read_json


class Answering:
    """The systems of one workdir."""

    def __init__(self, ws: Workspace, inputs: Inputs):
        """Loads nothing yet.

        Args:
          ws: the workdir; at least `teach` is finished.
          inputs: its corpus and language model.
        """
        self._ws, self._inputs = ws, inputs
        self._teacher = cache(self._load_teacher)
        self.language_system = cache(self._load_language)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What can be asked, the conventional recommenders first, hybrids last."""
        found = (*self._baselines, *self._cells, *self._language_names)
        return (*found, *(name for name, parts in self._hybrids.items() if set(parts) <= {*found}))

    def system(self, name: str, split: Split) -> System:
        """Returns a system that answers the histories of a split.

        Raises:
          UserError: there is none of this name.
        """
        if name not in self.names:
            raise UserError(f"no system {name!r} in {self._ws.root}: ask {', '.join(self.names)}")
        if name in self._hybrids:
            weights = self._hybrids[name]
            parts = {part: self.system(part, split) for part, weight in weights.items() if weight}
            return Hybrid(split, parts, {part: weights[part] for part in parts})
        if name not in self._language_names:
            teacher, longest = self._teacher(name)
            return ConventionalSystem(teacher, split, longest, spread_over(self._ws.experiment))
        if self.scorer.ranks_catalogue:
            return CatalogueSystem(self.scorer, self.language_system(name), split)
        config = self._ws.experiment
        unseen = self._inputs.data.num_items - int(split.seen_counts("test").max())
        return ListingSystem(
            self.scorer,
            self.language_system(name),
            split,
            source=self.system(self._distilled, split),
            most=min(self.listed, unseen),
            seed=config.candidates.seed,
            why=f"lm.verbalizer={config.lm.verbalizer}, prompts.show_candidates={config.prompts.show_candidates}",
        )

    def readers(self, name: str) -> tuple[str, ...]:
        """The language systems among a system and its parts."""
        parts = self._hybrids.get(name, {name: 1.0})
        return tuple(
            part for part, weight in parts.items() if weight and part in self._language_names
        )

    @property
    def ranks_catalogue(self) -> bool:
        """Whether language systems rank the whole catalogue, and not stated candidates only."""
        return self.scorer.ranks_catalogue

    @property
    def listed(self) -> int:
        """How many of the teacher's best items are stated where language systems rank stated candidates only."""
        return self._ws.experiment.candidates.rerank

    @property
    def main(self) -> str:
        """The system that the run was made for: the last of its method that is finished."""
        finals = {"delrec": "tune", "delrec_p2rec": "tune", "p2rec": "augment"}
        if not self._ws.finished(finals[self._ws.experiment.method]):
            return PLAIN
        return AUGMENTED if self._ws.experiment.method == "p2rec" else "delrec"

    @cached_property
    def scorer(self) -> LanguageScorer:
        """What scores texts."""
        return LanguageScorer(self._inputs.language)

    @cached_property
    def _baselines(self) -> Mapping[str, Choice]:
        return chosen(self._ws) if self._ws.finished("fit") else {}

    @cached_property
    def _cells(self) -> Mapping[str, Cell]:
        """The trained recommenders: the teacher of `teach`, and its augmented twin where the method makes one."""
        experiment = self._ws.experiment
        if experiment.teacher.name == LISTS:
            return {}
        first = recommenders.first_cell(experiment)
        twin = Cell(first.name, first.seed, AUGMENTED)
        made = experiment.method != "delrec" and self._ws.finished("augment")
        return {PLAIN: first} | ({AUGMENTED: twin} if made and twin in cells(experiment) else {})

    @property
    def _distilled(self) -> str:
        return recommenders.distilled_cell(self._ws.experiment).system

    @cached_property
    def _language_names(self) -> tuple[str, ...]:
        experiment = self._ws.experiment
        if experiment.method == "p2rec" or not self._ws.finished("tune"):
            return ()
        words = experiment.data.corpus == "storefront"
        return language_systems.system_names(experiment, words=words)

    @cached_property
    def _hybrids(self) -> Mapping[str, Mapping[str, float]]:
        """The weights of the hybrids of the first teacher and seed that `evaluate` chose."""
        file = self._ws.folder("evaluate") / "hybrids.json"
        if not (self._ws.finished("evaluate") and file.exists()):
            return {}
        first = recommenders.first_cell(self._ws.experiment)
        return {
            row["system"]: row["weights"]
            for row in read_json(file)
            if (row.get("teacher", first.name), row.get("seed", first.seed))
            == (first.name, first.seed)
        }

    def _load_teacher(self, name: str) -> tuple[Teacher, int]:
        """A conventional recommender, and how many latest items it reads."""
        data = self._inputs.data
        if name in self._cells:
            cell = self._cells[name]
            length = cell.config(self._ws.experiment).max_length
            return recommenders.load_cell(self._ws, data, cell), length
        teacher = fitted(name, training_part(data), self._baselines[name])
        return teacher, closed_form(name).max_length

    def _load_language(self, name: str) -> LanguageSystem:
        return language_systems.language_system(self._ws, self._inputs.language, name, self._guides)

    @cached_property
    def _guides(self) -> Guides | None:
        return make_guides(self._ws, self._inputs.data, self._inputs.language)
