"""600 damaged sources of all formats: refused with file and remedy, counted, or read as they were."""

import broken_corpora
import pytest


def case(seed, number, folder):
    return broken_corpora.damaged_source(seed, number, folder / "case")


@pytest.mark.slow
def test_damaged_sources(fuzz, tmp_path):
    fuzz("corpora", 50 * len(broken_corpora.SOURCES), lambda seed, n: case(seed, n, tmp_path))


def test_a_sample(fuzz, tmp_path):
    cases = 5 * len(broken_corpora.SOURCES)
    fuzz("corpora", cases, lambda seed, n: case(seed, n, tmp_path), widened=False)
