"""The DELRec systems that are evaluated: the language model with the prompts and adapters of stages 1 and 2."""

from dataclasses import replace

import jax
import numpy as np

from delrec_jax.config import Experiment
from delrec_jax.data.corpora.storefront_world import BEHAVIOUR_WORDS
from delrec_jax.data.prompts import NO_PATTERN
from delrec_jax.delrec import files
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.language_scorer import LanguageSystem
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.workspace import Workspace

WORDS_OF_THE_STORE = BEHAVIOUR_WORDS["companion_next"][0]
"""What most of the storefront's customers do, in the words of pre-training: the best single instruction."""

TUNED = {
    "none": "lm_tuned_no_prompt",
    "random": "lm_tuned_random_prompt",
    "shuffled": "lm_tuned_shuffled_prompt",
    "true": "lm_tuned_true_prompt",
    "distilled": "delrec",
}
"""The tuned systems by the prompt that they were tuned with, `none` for no prompt."""


def language_systems(ws: Workspace, data: Data, language: Language) -> dict[str, LanguageSystem]:
    """All language systems by their name in the results."""
    systems = {bare_name(ws.experiment): prompted(ws, language, "none")}
    if language.ranker.verbalizer.distilled:
        systems["lm_readout"] = prompted(ws, language, files.READOUT)
    systems |= {
        "lm_random_prompt": prompted(ws, language, "random"),
        "lm_shuffled_prompt": prompted(ws, language, "shuffled"),
        "lm_distilled_prompt": prompted(ws, language, "distilled"),
        "lm_true_prompt": prompted(ws, language, "true"),
    }
    for name in tuned_with(ws.experiment):
        systems[TUNED[name]] = tuned(ws, language, name)
    if data.world is not None:
        systems["lm_words"] = LanguageSystem(language.ids(WORDS_OF_THE_STORE))
    return systems


def bare_name(experiment: Experiment) -> str:
    """The name of the language model without prompt and adapters, by what it was trained on.

    `recent` and `cloze` texts ask for users' own next items in the words of evaluation: a model that was pre-trained on
    them here is a supervised recommender, and only without them are its answers zero-shot.
    """
    texts = experiment.pretrain.text
    supervised = not experiment.lm.weights and texts.recent + texts.cloze > 0
    return "lm_supervised" if supervised else "lm_no_prompt"


def tuned_with(experiment: Experiment) -> tuple[str, ...]:
    """The prompts that stage 2 tunes with, `distilled` first."""
    return ("distilled", *experiment.tune.controls)


def prompted(ws: Workspace, language: Language, name: str) -> LanguageSystem:
    """The language model with this prompt and readout; for `none` and `readout`, with texts that have no slots.

    These hold a prompt of zeros, which no text refers to: so all systems share their compiled programs.
    """
    if name == "none":
        return LanguageSystem(NO_PATTERN, _unread_prompt(language))
    found, step = files.load_distilled(ws, name), files.selected_step(files.prompt_path(ws, name))
    readout = {**language.readout, **language.put(found["readout"])}
    if name == files.READOUT:
        return LanguageSystem(NO_PATTERN, _unread_prompt(language), readout=readout, step=step)
    prompt = language.put({"prompt": found["prompt"]})["prompt"]
    return LanguageSystem(language.slots, prompt, readout=readout, step=step)


def tuned(ws: Workspace, language: Language, name: str) -> LanguageSystem:
    """The language model with this prompt, and with the adapters and the readout that were tuned with it."""
    found = language.put(files.load_tuned(ws, name))
    return replace(
        prompted(ws, language, name),
        adapters=found["adapters"],
        readout=found["readout"],
        step=files.selected_step(files.adapter_path(ws, name)),
        beside=ws.experiment.tune.beside,
    )


def _unread_prompt(language: Language) -> jax.Array:
    unread = np.zeros((len(language.slots), language.model.width), np.float32)
    found: jax.Array = language.put({"prompt": unread})["prompt"]
    return found
