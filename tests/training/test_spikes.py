"""Spikes of the loss: what counts as one, and that a run which goes back is the run without the batches that it skips."""

import math
import os
import signal

import numpy as np
import pytest
from numbered import Killed, Numbered, log, rootless, saved, train

from delrec_jax.errors import Preempted, UserError
from delrec_jax.training.loop_config import LoopConfig
from delrec_jax.training.spikes import SpikeConfig, bound, first_spike

pytestmark = pytest.mark.exact

WILD = {
    10: 100.0
}  # batch number 10 is drawn for step 11; the last checkpoint before it is that of step 8
ROLLBACK = {"on_spike": "rollback"}


def test_the_bound_by_hand():
    config = SpikeConfig(deviations=2, window=5, least=3)
    assert bound([1.0, 9.0], config) == math.inf, "too few"
    # The last five: 1, 2, 3, 4, 10. Median 3; distances 2, 1, 0, 1, 7, so their median is 1.
    assert bound([99.0, 1, 2, 3, 4, 10], config) == pytest.approx(3 + 2 * 1.4826)
    assert bound([5.0, 5, 5], config) == pytest.approx(5.1), "a deviation is at least 1 %"
    assert bound([-5.0, -5, -5], config) == pytest.approx(-4.9)


def test_the_first_spike_counts_the_losses_of_its_own_block():
    config = SpikeConfig(deviations=2, window=5, least=3)
    assert first_spike([1.0, 2], [1.5, 1.8], config) is None
    found = first_spike([1.0, 2], [1.5, 1.8, 4.0, 99.0], config)
    assert (found.place, found.loss) == (2, 4.0)
    assert found.bound == pytest.approx(1.65 + 2 * 1.4826 * 0.25)
    for bad in (math.nan, math.inf):
        assert first_spike([], [1.0, bad], config).place == 1, "at any time"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 1}, "loop.spike.window is 1: it must be at least 2"),
        ({"least": 1}, "loop.spike.least is 1"),
        ({"rollbacks": 0}, "loop.spike.rollbacks is 0"),
        ({"deviations": 0.0}, "loop.spike.deviations is 0.0: it must be above 0"),
        ({"deviations": math.nan}, "loop.spike.deviations is nan"),
        ({"window": 10, "least": 11}, "only 10 losses are kept"),
    ],
)
def test_a_definition_that_cannot_be_used_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        SpikeConfig(**settings)


def test_an_unknown_answer_to_a_spike_is_refused():
    with pytest.raises(UserError, match="on_spike is 'rolback': use stop or rollback, or leave it"):
        LoopConfig(on_spike="rolback")


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    """What a run leaves whose batches 8, 9 and 10 do not exist."""
    directory = tmp_path_factory.mktemp("without")
    params, _ = train(directory, Numbered(numbers=[*range(8), *range(11, 32)]))
    return params["w"].tobytes(), params["v"].tobytes(), log(directory)


def assert_like(without, params, meta, directory):
    """The same bits and the same log as `without`, but for the note that the run went back once."""
    w, v, rows = without
    assert (params["w"].tobytes(), params["v"].tobytes()) == (w, v)
    found = log(directory)
    assert [row.pop("rollbacks") for row in found] == [0, 0, 1, 1, 1]
    assert found == rows
    (gone,) = meta["rollbacks"]
    assert (gone["step"], gone["to"], gone["skipped"]) == (11, 8, 3)
    assert gone["loss"] > gone["bound"] > 0


def test_without_a_spike_nothing_changes(tmp_path):
    plain, meta_plain = train(tmp_path / "plain", Numbered())
    watched, meta = train(tmp_path / "watched", Numbered(), config=ROLLBACK)
    assert watched["w"].tobytes() == plain["w"].tobytes()
    assert meta == meta_plain | {"rollbacks": []}
    assert "rollbacks" not in log(tmp_path / "plain")[0]
    for stopping in ("", "stop"):
        _, found = train(tmp_path / f"now {stopping}", Numbered(), config={"on_spike": stopping})
        assert found == meta_plain


def test_a_spike_that_nobody_watches_for_is_trained_on(tmp_path):
    batches = Numbered(bad=WILD)
    train(tmp_path, batches)
    assert batches.given == list(range(16))


def test_it_goes_back_and_is_the_run_without_the_skipped_batches(without, tmp_path, capsys):
    batches = Numbered(bad=WILD)
    params, meta = train(tmp_path, batches, config=ROLLBACK)
    assert batches.given[:11] == list(range(11)) and batches.given[-8:] == list(range(11, 19))
    assert_like(without, params, meta, tmp_path)
    said = capsys.readouterr().err
    assert (
        "at step 11: back to step 8, then continuing with the batch after it; batches skipped: 3"
        in said
    )
    assert "(rollback 1 of 2)" in said


@pytest.mark.parametrize("number", [8, 9, 11], ids=["a step", "an evaluation", "a checkpoint"])
def test_a_gradient_that_is_not_finite_is_a_spike_of_its_own_step(tmp_path, capsys, number):
    """Its loss is finite: only the next one would not be, after an evaluation had ended the run."""
    batches = Numbered(bad={number: -5})
    params, meta = train(tmp_path, batches, loss=rootless, config=ROLLBACK)
    (gone,) = meta["rollbacks"]
    assert (gone["step"], gone["to"]) == (number + 1, 8) and gone["loss"] is None
    assert np.isfinite(params["w"]).all()
    assert "the loss or its gradient was nan at step" in capsys.readouterr().err


def stop_now():
    os.kill(os.getpid(), signal.SIGTERM)


def killed():
    raise Killed


@pytest.mark.parametrize("at", [9, 12, 17])  # before the spike, right after the way back, and later
@pytest.mark.parametrize("end", [(killed, Killed), (stop_now, Preempted)], ids=["kill", "SIGTERM"])
def test_an_end_near_a_rollback_changes_no_bit(without, tmp_path, at, end, orderly_end):
    happens, error = end
    with pytest.raises(error):
        train(tmp_path, Numbered(bad=WILD, at=at, happens=happens), config=ROLLBACK)
    params, meta = train(tmp_path, Numbered(bad=WILD), config=ROLLBACK)
    assert_like(without, params, meta, tmp_path)


def test_told_to_end_again_and_again_it_still_goes_back_to_a_planned_checkpoint(
    without, tmp_path, orderly_end
):
    for _ in range(2):  # saved at 9 and at 10, which would push out that of step 8
        batches = Numbered(bad=WILD, at=8 if not tmp_path.joinpath("metrics.jsonl").exists() else 0)
        batches.happens = stop_now
        with pytest.raises(Preempted):
            train(tmp_path, batches, config=ROLLBACK)
    assert saved(tmp_path) == [8, 9, 10]
    params, meta = train(tmp_path, Numbered(bad=WILD), config=ROLLBACK)
    assert_like(without, params, meta, tmp_path)


def test_a_checkpoint_of_what_is_forgotten_is_not_resumed_from(tmp_path, orderly_end):
    """Nor could another be saved in its place, as Orbax takes no step that is not after its latest."""
    with pytest.raises(Preempted):
        train(tmp_path, Numbered(bad=WILD, at=8, happens=stop_now), config=ROLLBACK)
    assert saved(tmp_path) == [8, 9]
    # It draws batches 9 and 10, and 10 again on its way back.
    with pytest.raises(Killed):
        train(tmp_path, Numbered(bad=WILD, at=3, happens=killed), config=ROLLBACK)
    assert saved(tmp_path) == [8]


@pytest.mark.parametrize("block", [1, 4])
def test_blocks_of_steps_go_back_alike(tmp_path, block):
    """The spike is within a block of four: steps 10 and 11 are one call."""
    spared = Numbered(numbers=[*range(8), *range(11, 32)], block=1)
    expected, _ = train(tmp_path / "without", spared)
    batches = Numbered(bad=WILD, block=block)
    params, meta = train(tmp_path / "went back", batches, config=ROLLBACK | {"evaluate_every": 16})
    assert params["w"].tobytes() == expected["w"].tobytes()
    assert [(gone["step"], gone["to"]) for gone in meta["rollbacks"]] == [(11, 8)]


def test_a_block_goes_on_after_the_spike_and_not_after_the_block(tmp_path):
    batches = Numbered(bad={8: 100.0}, block=4)
    train(tmp_path, batches, config=ROLLBACK | {"evaluate_every": 16})
    assert batches.given[:12] == list(range(12)), "the spike is the first of batches 8 to 11"
    assert batches.given[12:14] == [8, 9], "set back, and drawn over"
    assert batches.given[-8:] == list(range(9, 17))


def test_before_any_checkpoint_it_goes_back_to_the_start(tmp_path):
    params, meta = train(
        tmp_path / "back", Numbered(bad={3: np.nan}), config=ROLLBACK | {"checkpoint_every": 100}
    )
    expected, _ = train(tmp_path / "without", Numbered(numbers=list(range(4, 32))))
    assert params["w"].tobytes() == expected["w"].tobytes()
    gone = {"step": 4, "to": 0, "skipped": 4, "loss": None}
    assert {name: meta["rollbacks"][0][name] for name in gone} == gone
    assert [row["step"] for row in log(tmp_path / "back")] == [0, 5, 10, 15, 16]


def test_it_goes_back_so_often_and_then_ends(tmp_path):
    wild = dict.fromkeys(range(10, 32), 100.0)
    batches = Numbered(bad=wild)
    with pytest.raises(UserError, match=r"the loss jumped to .* at step \d+ after 2 rollbacks"):
        train(tmp_path, batches, config=ROLLBACK)
    assert len(batches.given) == 15, "11, then each time one, drawn over where it goes back"
    assert not (tmp_path / "result.safetensors").exists()


def test_stop_ends_the_run_with_its_loss_in_the_log(tmp_path):
    with pytest.raises(UserError) as error:
        train(tmp_path, Numbered(bad=WILD), config={"on_spike": "stop"})
    message = str(error.value)
    assert message.startswith("tiny/numbered: the loss jumped to ")
    assert "at step 11, which ends the run (loop.on_spike)" in message
    assert f"the last good checkpoint is {tmp_path / 'checkpoints' / '8'}" in message
    assert log(tmp_path)[-1]["step"] == 11 and log(tmp_path)[-1]["loss"] > 1000
    assert saved(tmp_path) == [4, 8]
