"""The DELRec systems that are evaluated: the language model with the prompts and adapters of stages 1 and 2."""

from delrec_jax.data.corpora.storefront_world import BEHAVIOUR_WORDS
from delrec_jax.data.prompts import NO_PATTERN
from delrec_jax.delrec import files
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.language_scorer import LanguageSystem
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.workspace import Workspace


def language_systems(
    ws: Workspace, data: Data, language: Language
) -> dict[tuple[str, str], LanguageSystem]:
    """All language systems by (name in the results, labels)."""
    slots = language.slots

    def prompted(name: str, adapters: str | None = None) -> LanguageSystem:
        """The language model with this prompt and these adapters."""
        tree = None if adapters is None else language.put(files.load_adapters(ws, adapters))
        return LanguageSystem(slots, files.place_prompt(ws, language, name), tree)

    systems = {
        ("lm_no_prompt", "all"): LanguageSystem(NO_PATTERN),
        ("lm_random_prompt", "all"): prompted("random"),
        ("lm_shuffled_prompt", "all"): prompted("shuffled"),
        ("lm_distilled_prompt", "all"): prompted("distilled"),
        ("lm_true_prompt", "all"): prompted("true"),
        ("lm_tuned_random_prompt", "all"): prompted("random", "random"),
        ("delrec", "all"): prompted("distilled", "distilled"),
    }
    if data.world is not None:
        words = language.ids(WORDS_OF_THE_STORE)
        systems["lm_words", "all"] = LanguageSystem(words)
    few = ws.experiment.tune.few_users
    if few:
        labels = f"{few}-users"
        systems["lm_true_prompt", labels] = prompted("true_few")
        systems["lm_tuned_random_prompt", labels] = prompted("random", "random_few")
        systems["delrec", labels] = prompted("distilled", "distilled_few")
    return systems


# What most of the storefront's customers do, in the words of pre-training: the best single instruction.
WORDS_OF_THE_STORE = BEHAVIOUR_WORDS["companion_next"][0]
