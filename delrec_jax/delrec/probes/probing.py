"""Asks a finished run everything that the modules of this folder can ask about its prompt."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from delrec_jax.delrec import files, systems
from delrec_jax.delrec.agreement import MEASURES
from delrec_jax.delrec.guides import make_guides
from delrec_jax.delrec.probes.held_out import HeldOutUsers, teacher_agreement
from delrec_jax.delrec.probes.nearest_words import nearest_words
from delrec_jax.delrec.probes.order_sensitivity import order_sensitivity
from delrec_jax.delrec.probes.prompt_transfer import (
    OWN,
    CarriedPrompt,
    Measure,
    carried_prompt,
    prompt_cosines,
    prompt_transfer,
)
from delrec_jax.delrec.probes.ranked_users import (
    METRIC,
    Asked,
    RankedUsers,
    asked_language,
    asked_recommender,
    draw_users,
)
from delrec_jax.delrec.probes.slot_ablation import slot_ablation
from delrec_jax.distributed import on_host
from delrec_jax.teachers.registry import LISTS
from delrec_jax.training.writers import say
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.language_scorer import LanguageScorer, LanguageSystem
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.recommenders import load_teacher
from delrec_jax.workdir.spread_scores import placed_scores, spread_over
from delrec_jax.workdir.workspace import Workspace

_SLOT_SHARE = 4

DISTILLED_SYSTEM = "lm_distilled_prompt"
TUNED_SYSTEM = systems.TUNED_WITH["distilled"]


class Probing:
    """The parts of one finished run that probes ask; each is loaded once, and only if it is asked."""

    def __init__(self, ws: Workspace, data: Data, language: Language, *, users: int):
        """Draws the users.

        Args:
          ws: a run whose `distill` is finished.
          data: its corpus.
          language: its language model.
          users: number of validation users, at most; the many readings of the slots ask a quarter of them.
        """
        self.ws, self._data, self._language = ws, data, language
        self._scorer = LanguageScorer(language)
        self._guides = make_guides(ws, data, language)
        self.seed = ws.experiment.seed
        draw = partial(
            draw_users,
            data.split,
            seed=self.seed,
            candidates=None if self._scorer.ranks_catalogue else data.candidates["valid"].items,
            batch_size=ws.experiment.evaluate.batch_size,
        )
        few = -(-users // _SLOT_SHARE)
        self.users, self.few_users = draw(users), draw(few)
        self._few = few

    @cached_property
    def heldout(self) -> HeldOutUsers:
        """The users that `distill` reports agreement on."""
        return HeldOutUsers(self.ws, self._data, self._language, self._guides)

    @cached_property
    def _models(self) -> dict[str, LanguageSystem]:
        """The language model with the distilled prompt, and, after `tune`, DELRec."""
        load = {DISTILLED_SYSTEM: systems.prompted}
        if self.ws.finished("tune"):
            load[TUNED_SYSTEM] = systems.tuned
        return {
            name: system(self.ws, self._language, "distilled", self._guides)
            for name, system in load.items()
        }

    def agreement(self) -> list[dict[str, Any]]:
        """Rows of `teacher_agreement`."""
        true = None
        if "true" in systems.made_prompts(self.ws.experiment):
            true = systems.prompted(self.ws, self._language, "true", self._guides)
        stored = self.ws.folder("distill") / "agreement.json"
        return teacher_agreement(stored, self.heldout, true, seed=self.seed)

    def order(self) -> list[dict[str, Any]]:
        """Rows of `order_sensitivity`."""
        config = self.ws.experiment
        asked: dict[str, Asked] = {}
        if config.teacher.name == LISTS:
            say("  order: without the teacher, as teacher.name=lists knows only the true histories")
        else:
            asked["teacher"] = self._teacher()
        bare = systems.prompted(self.ws, self._language, "none", self._guides)
        for name, system in {systems.bare_name(config): bare, **self._models}.items():
            asked[name] = asked_language(self._scorer, system, self.users)
        shown = config.prompts.max_history
        return order_sensitivity(asked, self.users, max_history=shown, seed=self.seed)

    def _teacher(self) -> Asked:
        """The recommender that was distilled."""
        teacher, layout = load_teacher(self.ws, self._data), spread_over(self.ws.experiment)
        scores = placed_scores(teacher, layout)
        return asked_recommender(scores, self.ws.experiment.teacher.max_length, self.users)

    def slots(self) -> list[dict[str, Any]] | None:
        """Rows of `slot_ablation`, by the frozen language model; None if slots follow titles, so that no text has them all."""
        if self.ws.experiment.distill.titled:
            say("  slots: none, as those of distill.prompt=titles belong to items")
            return None
        own, texts = self._carried(self.ws, "distilled"), self.heldout.some(self._few)
        measures = self._measures(
            {DISTILLED_SYSTEM: self._models[DISTILLED_SYSTEM]}, self.few_users, texts
        )
        return slot_ablation(
            own.prompt,
            {
                name: lambda prompt, measure=measure: measure(replace(own, prompt=prompt))
                for name, measure in measures.items()
            },
            seed=self.seed,
        )

    def words(self) -> dict[str, Any] | None:
        """The result of `nearest_words`; None if slots depend on the user or an item, so that there are no K vectors."""
        language, config = self._language, self.ws.experiment.distill
        if config.guided or config.titled:
            what = "user" if config.guided else "item"
            say(
                f"  words: none, as the slots of distill.prompt={config.prompt} depend on the {what}"
            )
            return None
        own, tokenizer = self._carried(self.ws, "distilled"), language.tokenizer
        table = on_host(language.model.table(language.params)).astype(np.float32)
        table = table[: tokenizer.vocab_size]  # a pretrained table may have rows of no token
        return nearest_words(
            own.prompt, own.start, table, lambda token: tokenizer.decode([token]), seed=self.seed
        )

    def transfer(self, others: Mapping[str, Workspace]) -> dict[str, Any]:
        """Rows of `prompt_transfer`, and `prompt_cosines` of the own prompt with each other run's.

        Args:
          others: other runs by name, opened with `open_other`.
        """
        prompts = {OWN: self._carried(self.ws, "distilled")}
        for name in ("random", "shuffled"):
            if name in systems.made_prompts(self.ws.experiment):
                prompts[name] = self._carried(self.ws, name)
        prompts |= {name: self._carried(other, "distilled") for name, other in others.items()}
        models = dict(self._models)
        if self.ws.experiment.tune.train_prompt:
            models.pop(TUNED_SYSTEM, None)  # what it reads is not the prompt of stage 1
        measures = self._measures(models, self.users, None)
        return {
            "rows": prompt_transfer(prompts, measures, seed=self.seed),
            "cosines": {name: prompt_cosines(prompts[OWN], prompts[name]) for name in others},
            "runs": {name: _described(other) for name, other in others.items()},
        }

    def _carried(self, ws: Workspace, name: str) -> CarriedPrompt:
        return carried_prompt(ws, self._language, name)

    def _measures(
        self, models: dict[str, LanguageSystem], users: RankedUsers, texts: np.ndarray | None
    ) -> dict[str, Measure]:
        """How good a prompt is in place of the models' own: at the next item of these users, and at the teacher's answers."""

        def with_prompt(system: LanguageSystem, carried: CarriedPrompt) -> LanguageSystem:
            prompt = self._language.put({"prompt": carried.prompt})["prompt"]
            return replace(system, pattern=carried.pattern, prompt=prompt)

        def ranking(system: LanguageSystem, name: str, carried: CarriedPrompt) -> np.ndarray:
            asked = asked_language(self._scorer, with_prompt(system, carried), users)
            return users.values(asked(users.histories), name)

        found: dict[str, Measure] = {
            f"{METRIC} of {name}": partial(ranking, system, name) for name, system in models.items()
        }
        frozen = self._models[DISTILLED_SYSTEM]
        found[MEASURES["agreement"]] = lambda carried: self.heldout.agreement(
            with_prompt(frozen, carried), texts
        )
        return found


def run_probes(
    ws: Workspace, data: Data, language: Language, *, others: Mapping[str, Workspace], users: int
) -> dict[str, Any]:
    """Returns what all probes find, as `probes.json` stores it.

    Args:
      ws: a run whose `distill` is finished.
      data: its corpus.
      language: its language model.
      others: other runs by name, opened with `open_other`, whose prompts take the place of the run's own.
      users: number of validation users, at most.
    """
    probing = Probing(ws, data, language, users=users)
    steps: dict[str, Callable[[], Any]] = {
        "agreement": probing.agreement,
        "order": probing.order,
        "slots": probing.slots,
        "words": probing.words,
        "transfer": lambda: probing.transfer(others) if others else None,
    }
    found: dict[str, Any] = {}
    for name, ask in steps.items():
        if name != "transfer" or others:
            say(f"probe: {name} ...")
        found[name] = ask()
    return found | {
        "protocol": probing.users.protocol,
        "users": {"valid": len(probing.users), "slots": len(probing.few_users)},
        "prompt": ws.experiment.distill.prompt,
        "selected_step": files.selected_step(files.prompt_path(ws, "distilled")),
        "seed": ws.experiment.seed,
    }


def _described(ws: Workspace) -> str:
    config = ws.experiment
    return f"{config.data.corpus}, {config.teacher.name}, seed {config.seed}"
