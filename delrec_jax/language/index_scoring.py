"""The verbalizer `index`: a candidate's score is the logit of the one-token code before its title in the text."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from delrec_jax.errors import UserError
from delrec_jax.language.verbalizer import Question, Titles, Verbalizer
from delrec_jax.precision import EXACT


class Index(Verbalizer):
    """Scores candidates by their codes; the text must list them in the order in which they are scored. None tie."""

    name = "index"
    lists_codes = True
    asks_answers = True

    def key(self, title: Sequence[int]) -> None:
        """Returns None: every listed item has a code of its own."""

    def candidate_scores(
        self,
        question: Question,
        titles: Titles,
        candidates: Int[Array, "B C"],
        vectors: Float[Array, "I D"] | None,
    ) -> Float[Array, "B C"]:
        """Returns the logits of the codes: column c scores the candidate at position c of the list.

        Raises:
          UserError: there are more candidates than codes.
        """
        count = candidates.shape[1]
        if count > len(question.codes):
            raise UserError(
                f"{count} candidates, but lm.verbalizer=index has {len(question.codes)} codes: lower the "
                "number of candidates or use 'mean'"
            )
        codes = jnp.asarray(question.codes[:count])  # [C]
        hidden, head = question.state(), question.head()
        rows = head[codes].astype(jnp.float32)  # [C, D]
        return jnp.matmul(hidden.astype(jnp.float32), rows.T, precision=EXACT)  # [B, C]


INDEX = Index()
