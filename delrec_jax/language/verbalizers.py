"""The verbalizers, by their name in `lm.verbalizer`."""

from delrec_jax.errors import UserError
from delrec_jax.language.embedding_scoring import EMBEDDING
from delrec_jax.language.index_scoring import INDEX
from delrec_jax.language.mean_scoring import FIRST, MEAN
from delrec_jax.language.sequence_scoring import SEQUENCE
from delrec_jax.language.verbalizer import Verbalizer
from delrec_jax.plugins import find

VERBALIZERS: dict[str, Verbalizer] = {
    one.name: one for one in (FIRST, MEAN, SEQUENCE, INDEX, EMBEDDING)
}


def find_verbalizer(name: str) -> Verbalizer:
    """Returns the verbalizer that a setting names: one of `VERBALIZERS`, or the object NAME in a user's `FILE.py:NAME`.

    Raises:
      UserError: no such verbalizer.
    """
    found = find(name, VERBALIZERS, key="lm.verbalizer")
    if not isinstance(found, Verbalizer):
        raise UserError(
            f"lm.verbalizer is {name!r}, which is not a verbalizer: name an object of a class that inherits from "
            "language.verbalizer.Verbalizer"
        )
    if not hasattr(found, "name"):
        raise UserError(f"lm.verbalizer is {name!r}, which lacks a name")
    return found
