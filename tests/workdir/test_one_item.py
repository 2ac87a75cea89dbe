"""A training part with a single item, which a network cannot learn from."""

import numpy as np
import pytest

from delrec_jax.config import default_config, from_config
from delrec_jax.data.interactions import from_rows
from delrec_jax.data.split_kinds import leave_one_out
from delrec_jax.errors import UserError
from delrec_jax.workdir.teacher_training import TeacherTraining


@pytest.mark.parametrize(("loss", "cold"), [("cross_entropy", True), ("gbce", False)])
def test_one_item_to_train_on_is_refused(loss, cold):
    """By all items of the catalogue, or by those that may be negatives."""
    rows = [np.zeros(5, int), np.array([0, 0, 0, int(not cold)])]
    split = leave_one_out(from_rows(["a", "b"], rows, [np.arange(len(row)) for row in rows]))
    config = default_config()
    config.teacher.loss.name, config.teacher.cold_negatives = loss, cold
    experiment = from_config(config)
    with pytest.raises(UserError, match="fewer than two different items"):
        TeacherTraining(
            experiment, experiment.teacher, split, 2 - cold, watch=experiment, saved=experiment
        )
