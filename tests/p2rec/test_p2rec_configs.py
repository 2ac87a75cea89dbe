"""The shipped configs of P2Rec: plain and augmented arms have the budget of the recommenders' own configs."""

from pathlib import Path

import pytest

from delrec_jax.config import from_config, read_config

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("name", "own"), [("ml100k_mini", "ml_100k"), ("office", "small"), ("beauty", "beauty")]
)
def test_recommenders_train_as_long_as_they_do_alone(name, own):
    config = from_config(read_config(CONFIGS / "p2rec" / f"{name}.py"))
    alone = from_config(read_config(CONFIGS / "teachers" / f"{own}.py"))
    assert config.teacher == alone.teacher
    assert config.augment.controls == ("untuned", "shuffled", "random")
    assert config.augment.start_std == 0.02  # 0.1 alone does harm
    assert config.parse.popularity == "residual" and 0 < config.parse.sub_histories < 1
    assert config.data.path == ""
