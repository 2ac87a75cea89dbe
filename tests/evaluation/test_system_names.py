"""The names of systems, and those with another recommender than the run's teacher."""

import pytest

from delrec_jax.evaluation.systems import (
    hybrid_name,
    hybrid_parts,
    is_system,
    of_recommender,
    split_recommender,
    untrained,
)


@pytest.mark.parametrize(
    ("system", "named"),
    [
        ("teacher", "teacher(ease)"),
        ("teacher_augmented", "teacher_augmented(ease)"),
        ("markov", "markov"),
        ("hybrid(teacher+markov)", "hybrid(teacher(ease)+markov)"),
        ("hybrid(tfidf+markov)", "hybrid(tfidf+markov)"),
    ],
)
def test_a_recommender_is_named_with_each_system_that_is_made_with_it(system, named):
    assert of_recommender(system, "ease") == named


def test_names_are_taken_apart_as_they_are_put_together():
    assert hybrid_parts(hybrid_name(["teacher", "ease"])) == ("teacher", "ease")
    assert hybrid_parts("teacher") == () and hybrid_parts("hybrid(teacher") == ()
    assert split_recommender("teacher(ease)") == ("teacher", "ease")
    assert split_recommender("markov") == ("markov", "")


def test_only_systems_and_hybrids_of_systems_have_results():
    assert is_system("markov") and is_system("hybrid(teacher+markov)")
    assert not is_system("markow") and not is_system("hybrid(teacher+markow)")


@pytest.mark.parametrize(
    ("system", "same"),
    [
        ("ease", True),
        ("oracle", True),
        ("hybrid(markov+lm_cease+tfidf)", True),
        ("hybrid(teacher+markov)", False),
        ("delrec", False),
    ],
)
def test_what_is_the_same_for_every_recommender_and_seed(system, same):
    assert untrained(system) == same
