"""What closed forms take, by hand: 10,000 items make a matrix of 381.5 MiB."""

from dataclasses import replace

import pytest

from delrec_jax.config import Experiment
from delrec_jax.planning.closed_forms import closed_forms_line

EXPERIMENT = Experiment()


def line(names, items=10_000, **changes):
    baselines = replace(EXPERIMENT.baselines, names=names, hybrids=())
    return closed_forms_line(replace(EXPERIMENT, baselines=baselines, **changes), items)


@pytest.mark.parametrize(
    ("names", "host", "device"),
    [
        (("popularity", "ease"), "2.2 GiB", "381.5 MiB"),
        (("popularity", "markov", "ease", "cease"), "3.4 GiB", "1.1 GiB"),
    ],
)
def test_matrices_by_hand(names, host, device):
    found = line(names)
    assert found.startswith(f"CLOSED FORMS  {', '.join(names[1:])}: about {host} of host memory")
    assert f"and {device} on the first device" in found and "(381.5 MiB for each" in found


def test_ease_that_p2rec_augments_is_cease():
    augment = replace(EXPERIMENT.augment, teachers=("sasrec", "ease"))
    assert line(("popularity",)) == ""
    assert line(("popularity",), augment=augment) == "", "DELRec augments nothing"
    found = line(("popularity",), augment=augment, method="p2rec")
    assert found.startswith("CLOSED FORMS  ease: about 3.4 GiB")


def test_too_large_a_catalogue_has_none():
    assert line(("ease",), items=20_001).endswith("more than 20,000 items")
