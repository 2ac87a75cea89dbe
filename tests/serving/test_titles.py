"""Items by the names that people write: exact titles first, then whatever the case; ids as they are."""

import pytest

from delrec_jax.data.interactions import Catalogue
from delrec_jax.errors import UserError
from delrec_jax.serving.printing import split_history
from delrec_jax.serving.titles import Names

NAMES = Names(Catalogue(("1", "2", "3"), ("IT", "It", "Steins;Gate"), {}))


@pytest.mark.parametrize(
    ("named", "items"),
    [(["IT"], [0]), (["It"], [1]), ([" it ", "steins;gate"], None), (["steins;gate"], [2])],
)
def test_a_title_as_it_is_written_goes_before_one_that_differs_by_case(named, items):
    if items is None:
        with pytest.raises(
            UserError, match=r"'.it.' matches several items.*write the one that is meant: IT; It"
        ):
            NAMES.items([" it "])
    else:
        assert NAMES.items(named).tolist() == items


@pytest.mark.parametrize("named", [None, ["1", None]])
@pytest.mark.parametrize("by", ["id", "title"])
def test_an_empty_value_is_nobody_s_name(named, by):
    with pytest.raises(UserError, match=r"row 3: has an empty value .null.: give lists of"):
        NAMES.items(named, by, place="row 3")


@pytest.mark.parametrize(
    ("history", "titles"),
    [("IT; It", ["IT", " It"]), (r"IT; Steins\;Gate;", ["IT", " Steins;Gate"]), (" ; ", [])],
)
def test_a_semicolon_within_a_title_is_written_with_a_backslash(history, titles):
    assert split_history(history) == titles
