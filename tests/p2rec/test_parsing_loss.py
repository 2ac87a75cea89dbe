"""The loss of information reconstruction: its unit, and AdaLoRA's penalty beside it."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from delrec_jax.config import ParseConfig
from delrec_jax.config.p2rec import LOSSES
from delrec_jax.p2rec import parse, parsing_task
from delrec_jax.p2rec.preference_examples import PreferenceText

OWN = np.array([[0.5, 0.5, 0.0], [0.0, 0.25, 0.75], [1.0, 0.0, 0.0]], np.float32)
IDS = np.ones((3, 2), np.int32)
BATCH = PreferenceText(ids=IDS, counted=IDS, targets=OWN)


class Parser(SimpleNamespace):
    """Answers with its bias, whatever the text."""

    def logits(self, params, projection, ids, counted, *, adapters, dropout_key):
        return jnp.broadcast_to(projection["bias"], (len(ids), 3))


def loss_of(kind, **trained):
    loss = parsing_task.parsing_loss(Parser(), ParseConfig(loss=kind))
    trained = {"projection": {"bias": parse._mean_logits(OWN)}, **trained}
    frozen = {"params": None, "unit": parse._unit(OWN, kind)}
    return loss(trained, frozen, BATCH, None)


@pytest.mark.parametrize("kind", LOSSES)
def test_one_is_what_is_reached_without_reading_the_text(kind):
    errors, weights, more = loss_of(kind)
    assert errors.mean() == pytest.approx(1, rel=1e-5) and weights.tolist() == [1, 1, 1]
    assert more == {} and errors.std() > 0.1


def test_users_who_are_all_alike_have_no_error_to_divide_by():
    assert parse._unit(np.repeat(OWN[:1], 3, axis=0), "mse") == pytest.approx(1e-6)


def test_the_adapters_penalty_is_added(monkeypatch):
    monkeypatch.setattr(parsing_task, "orthogonality_penalty", lambda adapters: 4.0)
    more = loss_of("mse", adapters={})[2]
    assert more["penalty"] == pytest.approx(4.0 * ParseConfig().adalora.orthogonality) != 0
