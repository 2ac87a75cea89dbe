"""Does a prompt say something of its own run, or of recommending in general? Prompts of other runs take its place.

Method: as Su et al. ("On Transferability of Prompt Tuning for Natural Language Processing", NAACL 2022) move prompts between
tasks, the prompt of another seed, teacher or corpus is read by this run's language model in this run's texts, beside its own,
the untrained and the shuffled prompt. Only the prompt differs: adapters and readout stay this run's, so that the shuffled
prompt's figures are not those of `lm_shuffled_prompt` where the verbalizer has a readout.

A prompt consists of vectors of one language model, and another model could not read it: runs must begin with the same
weights. Where two prompts began at the same vectors (one seed), they resemble each other whatever they learned, so the
cosines of what training added stand beside those of the prompts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from delrec_jax.data.title_tokens import Ids
from delrec_jax.delrec import files
from delrec_jax.delrec.probes.nearest_words import cosine_table
from delrec_jax.delrec.probes.ranked_users import changed, measured
from delrec_jax.delrec.probes.slot_ablation import slot_count
from delrec_jax.delrec.prompt_start import PromptStart
from delrec_jax.errors import UserError
from delrec_jax.language.soft_prompt import slot_ids
from delrec_jax.workdir import base_model
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.stored_settings import stored_experiment
from delrec_jax.workdir.workspace import Workspace

OWN = "own"


@dataclass(frozen=True)
class CarriedPrompt:
    """A prompt of some run, to be read by this run's language model.

    Attributes:
      pattern: the ids that mark its slots.
      prompt: its vectors on the host, in either form of `language.soft_prompt`.
      start: what they were before training.
    """

    pattern: Ids
    prompt: Any
    start: Any


Measure = Callable[[CarriedPrompt], Float[np.ndarray, " U"]]
"""Maps a prompt to one value per user, higher is better."""


def prompt_transfer(
    prompts: Mapping[str, CarriedPrompt], measures: Mapping[str, Measure], *, seed: int
) -> list[dict[str, Any]]:
    """Returns what each prompt achieves in this run.

    Args:
      prompts: by name, the run's own under `OWN`.
      measures: how prompts are measured, by name.
      seed: seed of the bootstrap.

    Returns:
      One row per measure and prompt, with the fields of `measured`, and those of `changed` against the own prompt.
    """
    rows = []
    for name, measure in measures.items():
        own = measure(prompts[OWN])
        for prompt, carried in prompts.items():
            values = own if carried is prompts[OWN] else measure(carried)
            found = changed(own, values, seed=seed) | measured(values, seed=seed)
            rows.append({"prompt": prompt, "measure": name, **found})
    return rows


def prompt_cosines(own: CarriedPrompt, other: CarriedPrompt) -> dict[str, float] | None:
    """Returns how alike two prompts are, slot by slot; None if they differ in length, or if slots depend on the user.

    Slots are not aligned further: with fewer slots than dimensions, the best orthogonal map makes any two prompts alike.

    Returns:
      same: mean cosine of slots of the same number; different: of slots of different numbers, the control (absent in
      prompts of one slot); `added_same` and `added_different`: the same of what training added, if it changed every slot.
    """
    if any(isinstance(one.prompt, Mapping) for one in (own, other)):
        return None
    if len(own.prompt) != len(other.prompt):
        return None
    found = _alike(own.prompt, other.prompt)
    added = [np.asarray(one.prompt) - np.asarray(one.start) for one in (own, other)]
    if all(np.linalg.norm(one, axis=1).all() for one in added):
        found |= {f"added_{name}": value for name, value in _alike(*added).items()}
    return found


def _alike(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    cosines, same = cosine_table(a, b), np.eye(len(a), dtype=bool)
    found = {"same": float(cosines[same].mean())}
    return found | ({"different": float(cosines[~same].mean())} if len(a) > 1 else {})


def carried_prompt(ws: Workspace, language: Language, name: str) -> CarriedPrompt:
    """Returns a prompt that `distill` stored in a run.

    Args:
      ws: the run.
      language: the language model that is to read it, perhaps of another run.
      name: name of the prompt.
    """
    words = tuple(language.ids(ws.experiment.distill.init_text).tolist())
    start, seed = PromptStart(ws.experiment, words), ws.experiment.seed
    prompt = files.load_distilled(ws, name)["prompt"]
    begun = start.prompt(language.model.table(language.params), seed)
    pattern = np.array(slot_ids(language.model.vocab_size, slot_count(prompt)), np.int32)
    return CarriedPrompt(pattern, prompt, jax.tree.map(np.asarray, begun))


def open_other(ws: Workspace, directory: str) -> Workspace:
    """Opens the workdir of another run, whose prompt this run's language model can read.

    Args:
      ws: this run.
      directory: the other workdir; nothing is written there.

    Raises:
      UserError: there is no finished `distill`, or it belongs to another language model or kind of prompt.
    """
    place, root = f"--prompt_from={directory}", Path(directory)
    if not (root / "config.json").exists():
        raise UserError(f"{place}: no config.json there; give the --workdir of another run")
    if ws.experiment.distill.titled:
        raise UserError(
            f"{place}: the slots of distill.prompt=titles are made from this run's own items, so no other prompt can take "
            "their place; leave the flag out"
        )
    other = Workspace(root, stored_experiment(root), read_only=True)
    if other.experiment.method == "p2rec" or not other.finished("distill"):
        raise UserError(
            f"{place}: no finished `delrec distill` there, so it has no prompt; run it first"
        )
    models = [(base_model.fingerprint(one), one.experiment.lm.quantise) for one in (ws, other)]
    if models[0] != models[1]:
        raise UserError(
            f"{place}: its prompt belongs to another language model ({_named(*models[1])}, here {_named(*models[0])}); give a "
            "run with the same lm.weights and lm.quantise, or one that shares the folder `lm` of this run"
        )
    kinds = [one.experiment.distill.prompt for one in (ws, other)]
    if kinds[0] != kinds[1]:
        raise UserError(
            f"{place}: distill.prompt is {kinds[1]} there and {kinds[0]} here; give a run with the same kind of prompt"
        )
    return other


def _named(fingerprint: str, quantise: str) -> str:
    return f"SHA-256 {fingerprint[:8]}..{', ' + quantise if quantise else ''}"
