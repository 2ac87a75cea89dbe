"""A model or verbalizer of one's own that lacks a required member is refused when it is made, not when it is first asked."""

import pytest

from delrec_jax.language.family import AnsweringModel, LanguageModel
from delrec_jax.language.mean_scoring import Averaging

ENCODES = ("axes_of", "encode", "param_shapes", "table", "with_adapters")
ANSWERS = ("answers", "forced_answers", "head", "logits")


def lacking(base, given):
    """A class of this base with members of these names alone."""
    return type("Own", (base,), {name: lambda self: None for name in given})


@pytest.mark.parametrize(
    ("base", "required"),
    [
        (LanguageModel, ENCODES),
        (AnsweringModel, (*ENCODES, *ANSWERS)),
        (Averaging, ("key", "words")),
    ],
)
def test_each_required_member_is_asked_for_by_its_name(base, required):
    lacking(base, required)()
    for name in required:
        with pytest.raises(TypeError, match=rf"abstract .*\b{name}\b"):
            lacking(base, set(required) - {name})()
