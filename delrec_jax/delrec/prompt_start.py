"""An untrained prompt: what all prompts of stage 1 begin as, and the shape that prompts of a config have."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from delrec_jax import prng
from delrec_jax.config import Experiment
from delrec_jax.delrec import title_slots
from delrec_jax.language.ranker import Ranker
from delrec_jax.language.soft_prompt import init_guided, init_prompt

Prompt = jax.Array | dict[str, Any]
"""What trains of a prompt: one of the forms of `language.soft_prompt`, or the projector of `title_slots`."""

RANDOM = "prompt/random"
"""The stream of the control that is never trained."""


@dataclass(frozen=True)
class PromptStart:
    """What an untrained prompt is made from, apart from the token table: the tokens of `distill.init_text`."""

    experiment: Experiment
    words: tuple[int, ...] = ()

    def prompt(
        self, table: jax.Array, seed: int, stream: str = "prompt/init", *, vectors: Any = None
    ) -> Prompt:
        """An untrained prompt of the config's kind, whose slots resemble rows of the token table [V, D].

        Args:
          table: the token table.
          seed: the experiment's seed.
          stream: name of its random stream.
          vectors: those of `title_slots`, if slots follow titles.
        """
        config, key = self.experiment.distill, prng.key(seed, stream)
        if config.titled:
            return title_slots.init_projector(table, vectors.shape[1], key)
        if not config.guided:
            return self._shared(table, key, stream)
        guided = init_guided(table, config.length, config.user_rank, jax.random.fold_in(key, 1))
        return guided | (
            {"shared": self._shared(table, key, stream)} if config.prompt == "both" else {}
        )

    def _shared(self, table: jax.Array, key: jax.Array, stream: str) -> jax.Array:
        config = self.experiment.distill
        # Words are the same in every stream: the random prompt would be no control, but the start of the trained ones.
        kind = "normal" if (config.init, stream) == ("text", RANDOM) else config.init
        return init_prompt(kind, table, config.length, key, text_ids=list(self.words))

    def shapes(self, ranker: Ranker) -> Any:
        """The shapes of a prompt as the texts of this language model read it (`title_slots.slots_of`)."""
        model = ranker.model
        if self.experiment.distill.titled:
            return jax.ShapeDtypeStruct((len(ranker.title_tokens), model.width), np.float32)
        table = jax.ShapeDtypeStruct((model.vocab_size, model.width), np.float32)
        return jax.eval_shape(lambda table: self.prompt(table, 0), table)


def prompt_shapes(experiment: Experiment, ranker: Ranker) -> Any:
    """The shapes of a config's prompts as texts read them; which words they begin with changes none."""
    return PromptStart(experiment, words=(0,)).shapes(ranker)
