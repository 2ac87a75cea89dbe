"""A model card holds titles and names of a corpus, whatever they are, in the places that it has for them."""

import re
import shlex

import pytest
from huggingface_hub import ModelCard

from delrec_jax.config import default_config, from_config
from delrec_jax.hub.card import Facts, model_card
from delrec_jax.hub.manifest import Manifest, SharedBase

HOSTILE = [
    "```\n---\nlicense: mine\n---\n# Owned\n```",
    "<script>alert(1)</script>",
    "{{ 7 * 7 }} {% include 'x' %}",
    "\x1b[2J'\"; rm -rf ~ $(id) `id`\u2028\u202e",
    "--- | a | b |",
]


def card(text):
    manifest = Manifest(1, "1", SharedBase("", "", ""), {}, ("teacher",), {}, "", {})
    statistics = dict.fromkeys(("split", "test_users", "items", "users", "interactions"), 10)
    facts = Facts(f"shop{text}", statistics, "a T5", (f"Heat{text}", f"Ran{text}"), (), True, "mit")
    return model_card(from_config(default_config()), manifest, (), facts)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_card_has_the_same_parts_whatever_the_titles(text):
    plain, found = card(""), card(text)

    def parts(made):
        return [line for line in made.splitlines() if re.match(r"(```|#|---|\|)", line)]

    line = " ".join(text.split())
    assert len(parts(found)) == len(parts(plain))
    assert parts(found)[2].startswith("# DELRec on shop") and "<script>" not in parts(found)[2]
    assert ModelCard(found).data.license == "mit"
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e]", found)
    (asked,) = re.findall(r"^delrec recommend .*$", found, re.MULTILINE)
    words = shlex.split(asked)
    assert words[:2] == ["delrec", "recommend"] and words[-2:] == ["-k", "5"] and len(words) == 6
    assert words[3].startswith("--history=Heat") and ("\\" in words[3] or words[3].endswith(line))
