"""The families of language models, by their name in `lm.family`."""

from delrec_jax.language.bert_family import BertFamily
from delrec_jax.language.family import Family
from delrec_jax.language.t5_family import T5Family
from delrec_jax.plugins import find

FAMILIES: dict[str, Family] = {"t5": T5Family(), "bert": BertFamily()}


def find_family(name: str) -> Family:
    """Returns the family that a setting names: one of `FAMILIES`, or the object NAME in a user's `FILE.py:NAME`.

    Raises:
      UserError: no such family.
    """
    return find(name, FAMILIES, key="lm.family", needs=("name", "model", "planned"))
