"""The DELRec systems that are evaluated: the language model with the prompts and adapters of stages 1 and 2."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from delrec_jax.config import Experiment
from delrec_jax.data.corpora.storefront_world import BEHAVIOUR_WORDS
from delrec_jax.data.prompts import NO_PATTERN
from delrec_jax.delrec import files, title_slots
from delrec_jax.delrec.guides import Guides, make_guides
from delrec_jax.delrec.prompt_start import prompt_shapes
from delrec_jax.language.verbalizer import Verbalizer
from delrec_jax.language.verbalizers import find_verbalizer
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.language_scorer import LanguageSystem
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.workspace import Workspace

WORDS_OF_THE_STORE = BEHAVIOUR_WORDS["companion_next"][0]
"""What most of the storefront's customers do, in the words of pre-training: the best single instruction."""

TUNED = {
    "lm_tuned_no_prompt": "none",
    "lm_tuned_random_prompt": "random",
    "lm_tuned_shuffled_prompt": "shuffled",
    "lm_tuned_true_prompt": "true",
    "delrec": "distilled",
}
"""The prompts that the tuned systems were tuned with, `none` for no prompt."""

TUNED_WITH = {prompt: system for system, prompt in TUNED.items()}
"""The tuned systems by that prompt."""

NOT_DISTILLED = ("none", "random")
"""The prompts that stage 1 does not train: tuned with them, the model begins with scalars that were distilled without one."""

PROMPTED = {
    "lm_readout": files.READOUT,
    "lm_random_prompt": "random",
    "lm_shuffled_prompt": "shuffled",
    "lm_distilled_prompt": "distilled",
    "lm_true_prompt": "true",
}
"""The prompts of the systems without adapters; that of `lm_readout` is none, with distilled scalars."""


def system_names(experiment: Experiment, *, words: bool) -> tuple[str, ...]:
    """The names of all language systems of a run, as in the results.

    Args:
      experiment: the config.
      words: whether there is an instruction in words to compare with: the storefront's.
    """
    readout = find_verbalizer(experiment.lm.verbalizer).distilled
    made = (*made_prompts(experiment), *((files.READOUT,) if readout else ()))
    return (
        bare_name(experiment),
        *(name for name, prompt in PROMPTED.items() if prompt in made),
        *(TUNED_WITH[prompt] for prompt in tuned_with(experiment)),
        *(("lm_words",) if words else ()),
    )


def language_system(
    ws: Workspace, language: Language, name: str, guides: Guides | None
) -> LanguageSystem:
    """Loads one language system by its name in the results.

    Args:
      ws: the workdir.
      language: the language model.
      name: one of `system_names`.
      guides: the result of `make_guides`.
    """
    if name == "lm_words":
        return LanguageSystem(language.ids(WORDS_OF_THE_STORE))
    if name in TUNED:
        return tuned(ws, language, TUNED[name], guides)
    prompts = {**PROMPTED, bare_name(ws.experiment): "none"}
    return prompted(ws, language, prompts[name], guides)


def language_systems(ws: Workspace, data: Data, language: Language) -> dict[str, LanguageSystem]:
    """All language systems by their name in the results."""
    guides = make_guides(ws, data, language)
    names = system_names(ws.experiment, words=data.world is not None)
    return {name: language_system(ws, language, name, guides) for name in names}


def training_folders(ws: Workspace, name: str) -> tuple[Path, ...]:
    """The folders of the training runs that made a language system, by its name in the results; none for an untrained one."""
    distilled = {system: prompt for system, prompt in PROMPTED.items() if prompt != "random"}
    if name in distilled:
        return (files.prompt_path(ws, distilled[name]).parent,)
    if name in TUNED:
        prompt, adapter = TUNED[name], files.adapter_path(ws, TUNED[name]).parent
        began = begins_with(prompt, find_verbalizer(ws.experiment.lm.verbalizer))
        return (*([files.prompt_path(ws, began).parent] if began else []), adapter)
    return ()


def begins_with(prompt: str, verbalizer: Verbalizer) -> str | None:
    """The training of stage 1 that stage 2 goes on from, if it tunes with this prompt; None if it begins anew.

    Prompts that stage 1 did not train begin with the scalars that it trained without a prompt, where there are any: so all
    begin with scalars that fit the teacher, and differ in their prompt alone.
    """
    if prompt not in NOT_DISTILLED:
        return prompt
    return files.READOUT if verbalizer.distilled else None


def bare_name(experiment: Experiment) -> str:
    """The name of the language model without prompt and adapters, by what it was trained on.

    `recent` and `cloze` texts ask for users' own next items in the words of evaluation: a model that was pre-trained on
    them here is a supervised recommender, and only without them are its answers zero-shot.
    """
    texts = experiment.pretrain.text
    supervised = not experiment.lm.weights and texts.recent + texts.cloze > 0
    return "lm_supervised" if supervised else "lm_no_prompt"


def made_prompts(experiment: Experiment) -> tuple[str, ...]:
    """The prompts that stage 1 leaves: the untrained one, the distilled one, and its controls."""
    return ("random", "distilled", *experiment.distill.controls)


def tuned_with(experiment: Experiment) -> tuple[str, ...]:
    """The prompts that stage 2 tunes with, `distilled` first."""
    return ("distilled", *experiment.tune.controls)


def prompted(ws: Workspace, language: Language, name: str, guides: Guides | None) -> LanguageSystem:
    """The language model with this prompt and readout; for `none` and `readout`, with texts that have no slots.

    Args:
      ws: the workdir.
      language: the language model.
      name: the prompt.
      guides: the result of `make_guides`.
    """
    if name == "none":
        return LanguageSystem(NO_PATTERN, unread_prompt(ws.experiment, language), guides=guides)
    found, step = files.load_distilled(ws, name), files.selected_step(files.prompt_path(ws, name))
    readout = {**language.readout, **language.put({"readout": found["readout"]})["readout"]}
    if name == files.READOUT:
        pattern, prompt = NO_PATTERN, unread_prompt(ws.experiment, language)
    else:
        pattern = language.slots
        prompt = title_slots.read_prompt(ws, language, found["prompt"])
    return LanguageSystem(pattern, prompt, readout=readout, step=step, guides=guides)


def tuned(ws: Workspace, language: Language, name: str, guides: Guides | None) -> LanguageSystem:
    """The language model with this prompt, and with the adapters and the readout that were tuned with it.

    The prompt is that of stage 1, or as stage 2 left it if it trained there too (`tune.train_prompt`).
    """
    stored = files.load_tuned(ws, name)
    found, start = language.put(stored), prompted(ws, language, name, guides)
    prompt = start.prompt
    if "prompt" in stored:
        prompt = title_slots.read_prompt(ws, language, stored["prompt"])
    vectors = None
    if ws.experiment.tune.refresh_vectors:
        vectors = language.tuned_vectors(
            found["adapters"], files.tuned_titles(ws, language.title_store, name)
        )
    return replace(
        start,
        prompt=prompt,
        adapters=found["adapters"],
        readout=found["readout"],
        step=files.selected_step(files.adapter_path(ws, name)),
        beside=ws.experiment.tune.beside,
        vectors=vectors,
    )


def unread_prompt(experiment: Experiment, language: Language) -> Any:
    """The prompt of texts without slots: zeros of the config's shape, so that all systems share their compiled programs."""
    shapes = prompt_shapes(experiment, language.ranker)
    unread = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    return language.put({"prompt": unread})["prompt"]
