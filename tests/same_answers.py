"""Whether a shared folder answers as the run that it was made of, bit for bit."""

import numpy as np

HISTORIES = [np.array(items, np.int32) for items in ([0, 1, 2], [5], [7, 3, 9, 11])]


def assert_same_answers(run, shared, *, k=8):
    """Every system of the shared folder has the items and scores of the run, and titles have the same vectors."""
    assert shared.main == run.main
    assert {"delrec", "lm_distilled_prompt"} <= set(shared.systems) <= set(run.systems)
    for system in shared.systems:
        asked = (recommender.ranked(HISTORIES, k=k, system=system) for recommender in (run, shared))
        for expected, found in zip(*asked, strict=True):
            for theirs, ours in zip(expected, found, strict=True):
                np.testing.assert_array_equal(theirs, ours, system)
    named = [[run.titles[item] for item in items] for items in HISTORIES]
    candidates = [list(run.titles[12:18])] * len(named)
    assert shared.rank(named, candidates).equals(run.rank(named, candidates))
    np.testing.assert_array_equal(shared.embed_items(), run.embed_items())
    np.testing.assert_array_equal(shared.embed_items(tuned=True), run.embed_items(tuned=True))
