"""`distill.exam_users` and `parse.exam_users`: how many of the users who select, or are reported on, are read."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from delrec_jax.config import DistillConfig, ParseConfig, default_config, from_config
from delrec_jax.delrec.rows import user_parts
from delrec_jax.errors import UserError
from delrec_jax.p2rec.parse import Parsing

USERS = np.arange(0, 400, 2, dtype=np.int32)


def stage_one(count, seed=3):
    return user_parts(USERS, DistillConfig(exam_users=count), seed)


def parsing(count, seed=3):
    of = SimpleNamespace(
        _config=replace(ParseConfig(), exam_users=count, valid_users=0.3),
        _split=SimpleNamespace(training_users=USERS),
    )
    return Parsing._parts(of, seed)


@pytest.mark.parametrize(
    ("parts_of", "read"), [(stage_one, ("valid", "heldout")), (parsing, ("valid",))]
)
def test_so_many_users_are_read_and_those_who_train_stay(parts_of, read):
    everyone, some, fewer = parts_of(0), parts_of(12), parts_of(5)
    for name, users in everyone.items():
        if name not in read:
            np.testing.assert_array_equal(some[name], users)
            continue
        assert [len(some[name]), len(fewer[name])] == [12, 5]
        assert set(fewer[name]) < set(some[name]) < set(users)
        assert (np.diff(some[name]) > 0).all() and set(some[name]) != set(users[:12])
        assert set(some[name]) != set(parts_of(12, seed=4)[name])
        np.testing.assert_array_equal(parts_of(1000)[name], users)


@pytest.mark.parametrize("section", ["distill", "parse"])
def test_they_can_be_many_but_not_negative(section):
    config = default_config()
    config[section].exam_users = 100_000
    assert getattr(from_config(config), section).exam_users == 100_000
    config[section].exam_users = -1
    with pytest.raises(UserError, match=rf"{section}\.exam_users is -1"):
        from_config(config)
