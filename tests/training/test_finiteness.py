"""A number that is not finite: the step, the leaf where it began, and what is left of the run."""

import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numbered import LAYOUT, Numbered, log, rootless, saved, train

from delrec_jax.errors import UserError
from delrec_jax.training import loop
from delrec_jax.training.finiteness import first_bad_leaf, first_bad_metric

pytestmark = pytest.mark.exact


def ended(directory, batches, **more):
    """The message of a run that ends early."""
    with pytest.raises(UserError) as error:
        train(directory, batches, **more)
    assert not (directory / "result.safetensors").exists()
    return str(error.value)


def test_metrics_are_looked_at_in_a_fixed_order():
    assert first_bad_metric({"loss": 1.0, "b": math.inf, "a": math.nan, "gradient_norm": 1}) == "a"
    assert first_bad_metric({"gradient_norm": math.nan, "a": math.nan, "loss": math.nan}) == "loss"
    assert first_bad_metric({"gradient_norm": math.nan, "z": 1.0, "loss": 1.0}) == "gradient_norm"
    assert first_bad_metric({"loss": 1.0}) is None


def test_leaves_are_looked_at_in_the_order_of_the_tree():
    bad, good = jnp.array([1.0, -jnp.inf]), jnp.ones(2)
    assert first_bad_leaf({"b": {"kernel": bad}, "a": good, "c": bad}, LAYOUT) == "b/kernel"
    assert first_bad_leaf({"a": good, "n": jnp.arange(3)}, LAYOUT) is None
    assert first_bad_leaf({"n": jnp.arange(3)}, LAYOUT) is None


@pytest.mark.parametrize("block", [0, 1, 4])
def test_the_loss_is_named_with_its_step_and_the_last_good_checkpoint(tmp_path, block, capsys):
    message = ended(tmp_path, Numbered(bad={9: np.nan}, block=block), config={"evaluate_every": 3})
    assert message.startswith(
        "tiny/numbered: the loss is not finite at step 10, the first such number (the log ends at step 12); the last good "
        f"checkpoint is {tmp_path / 'checkpoints' / '8'}. Lower its learning_rate, or set optimizer.clip"
    )
    assert saved(tmp_path) == [4, 8]
    assert [row["step"] for row in log(tmp_path)] == [0, 3, 6, 9, 12]
    assert math.isnan(log(tmp_path)[-1]["loss"]), "the log is written first"
    assert "looking for the first such number" in capsys.readouterr().err


@pytest.mark.parametrize("block", [0, 4])
def test_a_gradient_is_named_by_its_path(tmp_path, block):
    batches = Numbered(bad={6: -5}, block=block)
    message = ended(tmp_path, batches, loss=rootless)
    assert "tiny/numbered: the gradient of w is not finite at step 7, the first" in message
    assert saved(tmp_path) == [4]


def test_a_parameter_is_named_by_its_path_and_never_saved(tmp_path):
    """Loss and gradients are finite when it happens, and a checkpoint is due."""

    def late(count):
        return jnp.where(count == 7, 3e38, 0.01)

    message = ended(tmp_path, Numbered(bad={7: 1e3}), optimizer=optax.sgd(late))
    assert "tiny/numbered: the parameter v is not finite at step 8, the first" in message
    assert saved(tmp_path) == [4]


def test_without_a_checkpoint_it_is_found_from_the_start(tmp_path):
    config = {"checkpoint_every": 100}
    message = ended(tmp_path, Numbered(bad={2: np.inf}), config=config)
    assert "the loss is not finite at step 3, the first" in message
    assert "there is no checkpoint yet" in message


def test_what_does_not_happen_again_is_said(tmp_path):
    """As on hardware that does not give the same sums each time."""

    class Passing(Numbered):
        def set_state(self, state):
            super().set_state(state)
            self.rows[:] = 0

    message = ended(tmp_path, Passing(bad={6: np.nan}))
    assert "the loss is not finite at step 8; when the steps since" in message
    assert "were taken again, every number was finite" in message


@pytest.mark.parametrize("lost", [True, False])
def test_a_lost_process_is_not_taken_for_a_lack_of_memory(tmp_path, monkeypatch, lost):
    """While it is looked for where a number began that is not finite."""

    def fails(*asked):
        raise RuntimeError("Gloo: connection closed by peer")

    monkeypatch.setattr(loop, "origin", fails)
    monkeypatch.setattr(loop, "lost_another", lambda error: lost)
    if lost:
        with pytest.raises(RuntimeError, match="Gloo"):
            train(tmp_path, Numbered(bad={6: np.nan}))
    else:
        message = ended(tmp_path, Numbered(bad={6: np.nan}))
        assert "where it began could not be found: Gloo" in message


def test_after_going_back_too_often_the_skipped_batches_do_not_come_again(tmp_path):
    bad = dict.fromkeys((9, 10, 11), np.nan)
    message = ended(tmp_path, Numbered(bad=bad), config={"on_spike": "rollback"})
    # Batch 9 is step 10, then batch 10 is step 9 of what follows on step 8, and so is batch 11.
    assert (
        "the loss is not finite at step 9, the first such number (the log ends at step 9)"
        in message
    )


def test_a_step_that_cannot_tell_its_gradients_leaves_their_norm(tmp_path):
    from delrec_jax.training.gradients import mean_loss_gradients
    from delrec_jax.training.steps import TrainStep

    whole = TrainStep(mean_loss_gradients(rootless), optax.sgd(0.02, momentum=0.9), LAYOUT)
    message = ended(tmp_path, Numbered(bad={6: -5}), step=lambda *given: whole(*given))
    assert "the norm of the gradients is not finite at step 7" in message
