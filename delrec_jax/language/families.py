"""The families of language models, by the name that `lm.family` gives them."""

from delrec_jax.language.family import Family
from delrec_jax.language.t5_family import T5Family
from delrec_jax.plugins import find

FAMILIES: dict[str, Family] = {"t5": T5Family()}


def find_family(name: str) -> Family:
    """The family of a setting: one of `FAMILIES`, or `FILE.py:NAME` of the user's, NAME an object.

    Raises:
      UserError: no such family.
    """
    return find(name, FAMILIES, key="lm.family", needs=("name", "model", "planned"))
