import numpy as np
import pytest

from delrec_jax.config import AugmentConfig
from delrec_jax.errors import UserError
from delrec_jax.p2rec.augment import in_form, network_way
from delrec_jax.p2rec.text_vectors import WHITENING_RIDGE, principal, same_spectrum, unit_variance
from delrec_jax.workdir.recommenders import AUGMENTED, PLAIN

RNG = np.random.default_rng(0)
# Pooled embeddings: a large component that all share, and columns of very different spread.
POOLED = (50 + RNG.normal(size=(40, 6)) * [5, 0.1, 2, 1, 0.5, 3]).astype(np.float32)


def test_by_hand():
    found = unit_variance(np.array([[1.0, 10.0], [3.0, 10.0]]))
    # Centred: -1, 0 and 1, 0; their mean square is 1/2.
    np.testing.assert_allclose(found, [[-(2**0.5), 0], [2**0.5, 0]], rtol=1e-6)
    assert found.dtype == np.float32


def test_columns_are_centred_and_one_number_scales_them_all():
    found = unit_variance(POOLED)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-5)
    assert found.std() == pytest.approx(1, rel=1e-5)
    before = POOLED.astype(np.float64).std(axis=0)
    np.testing.assert_allclose(found.std(axis=0) / before, np.full(6, 1 / _spread()), rtol=1e-4)


def _spread():
    wide = POOLED.astype(np.float64)
    return (wide - wide.mean(axis=0)).std()


def test_a_common_part_and_the_unit_do_not_matter():
    shifted = 7 * POOLED.astype(np.float64) + RNG.normal(size=6)
    np.testing.assert_allclose(unit_variance(shifted), unit_variance(POOLED), atol=1e-5)


@pytest.mark.parametrize("width", [1, 3, 6, 10])
def test_principal_components_by_eigenvectors(width):
    found = principal(POOLED, width)
    centred = POOLED.astype(np.float64) - POOLED.astype(np.float64).mean(axis=0)
    values, loadings = np.linalg.eigh(centred.T @ centred)
    loadings = loadings[:, np.argsort(-values)][:, :width]
    loadings *= np.sign(loadings[np.abs(loadings).argmax(axis=0), np.arange(loadings.shape[1])])
    expected = centred @ loadings
    assert found.shape == (40, min(6, width))
    np.testing.assert_allclose(found, expected / expected.std(), atol=1e-4)


def test_components_keep_their_share_of_the_variance():
    spreads = principal(POOLED, 6).std(axis=0)
    assert (np.diff(spreads) < 0).all()
    assert spreads[0] > 20 * spreads[-1]  # whitened ones would be alike


def test_whitened_components_by_the_formula_and_nearly_alike():
    centred = POOLED.astype(np.float64) - POOLED.astype(np.float64).mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    found = principal(POOLED, 4, "whitened")
    expected = left * values / np.sqrt(values**2 + WHITENING_RIDGE * (values**2).mean())
    expected = expected[:, :4] * np.sign((expected[:, :4] * found).sum(axis=0))
    np.testing.assert_allclose(found, expected / expected.std(), atol=1e-4)
    spread, before = found.std(axis=0), principal(POOLED, 4).std(axis=0)
    assert before[0] > 3 * before[3] and spread[0] < 1.3 * spread[3]


def test_half_whitened_components_lie_between():
    whole, half, white = (
        principal(POOLED, 4, form).astype(np.float64)
        for form in ("pca", "half_whitened", "whitened")
    )
    spreads = whole.std(axis=0)
    np.testing.assert_allclose(
        half.std(axis=0) ** 2 / spreads, (half.std(axis=0) ** 2 / spreads)[0]
    )
    np.testing.assert_allclose(half / half.std(axis=0), whole / spreads, atol=1e-4)
    ratios = [one.std(axis=0)[0] / one.std(axis=0)[3] for one in (whole, half, white)]
    assert ratios[0] > 1.2 * ratios[1] > 1.2 * ratios[2]


@pytest.mark.parametrize("shape", [(40, 6), (5, 9)])
def test_random_vectors_have_the_spectrum_and_nothing_else(shape):
    vectors = (RNG.normal(size=shape) * np.linspace(4, 0.1, shape[1]) + 7).astype(np.float32)
    found = same_spectrum(vectors, 3)
    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    assert found.shape == shape and found.dtype == np.float32
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(found.T @ found, centred.T @ centred, rtol=1e-3, atol=1e-3)
    # Gram matrices say who is like whom.
    alike = np.corrcoef(
        (found @ found.T)[np.triu_indices(len(found), 1)],
        (centred @ centred.T)[np.triu_indices(len(found), 1)],
    )[0, 1]
    assert abs(alike) < (0.2 if len(found) == 40 else 0.9)
    np.testing.assert_array_equal(found, same_spectrum(vectors, 3))
    assert np.abs(found - same_spectrum(vectors, 4)).max() > 0.1


def test_fewer_items_than_columns():
    assert principal(RNG.normal(size=(4, 9)), 6).shape == (4, 4)


def test_the_order_of_the_items_does_not_turn_a_component():
    order = RNG.permutation(len(POOLED))
    np.testing.assert_allclose(principal(POOLED[order], 4), principal(POOLED, 4)[order], atol=1e-4)


REDUCTIONS = (
    unit_variance,
    lambda vectors: principal(vectors, 2),
    lambda vectors: same_spectrum(vectors, 0),
)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_vectors_that_say_nothing_are_errors(reduce):
    broken = POOLED.copy()
    broken[3, 1], broken[7, 0] = np.inf, np.nan
    with pytest.raises(UserError, match=r"augment: .* 2 of 40 items are not finite .*is item 3"):
        reduce(broken)
    equal = np.tile(POOLED[:1], (5, 1))
    rounded = equal * (1 + 1e-7 * RNG.normal(size=equal.shape))
    for vectors in (equal, rounded, np.zeros((3, 2)), POOLED[:1]):
        with pytest.raises(UserError, match=r"augment: .* are equal"):
            reduce(vectors)


FORMS = [
    ("pca", "concatenate", "concatenate", lambda: principal(POOLED, 4, "pca")),
    ("half_whitened", "initialise", "own", lambda: principal(POOLED, 4, "half_whitened")),
    ("learned", "adapter", "adapter", lambda: unit_variance(POOLED)),
    ("pca", "ensemble", "adapter", lambda: principal(POOLED, 4, "pca")),
    ("pca", "halves", "halves", lambda: np.float32(0.1) * principal(POOLED, 2, "pca")),
]


@pytest.mark.parametrize(("reduce", "way", "of_network", "expected"), FORMS)
def test_vectors_come_to_a_network_in_the_form_of_its_way(reduce, way, of_network, expected):
    config = AugmentConfig(reduce=reduce, way=way, start_std=0.1)
    np.testing.assert_array_equal(in_form(POOLED, config, 4), expected())
    assert network_way(config, AUGMENTED) == of_network
    assert network_way(config, PLAIN) == "own"
