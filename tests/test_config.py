import dataclasses
import json
import math

import pytest
from ml_collections import ConfigDict

from delrec_jax.config import (
    METHODS,
    DistillConfig,
    Experiment,
    TeacherConfig,
    default_config,
    from_config,
    leaf_keys,
    to_dict,
    unknown_key,
)
from delrec_jax.errors import UserError
from delrec_jax.workdir.stage_table import STAGES

DEFAULTS = to_dict(Experiment())


def nested(key, value):
    """{"a": {"b": value}} of "a.b"."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return ConfigDict(value)


def sections(values, prefix=""):
    """Dotted names of all sections, "" for the whole."""
    names = [prefix]
    for name, value in values.items():
        if isinstance(value, dict):
            names += sections(value, f"{prefix}.{name}".lstrip("."))
    return names


def at(key):
    value = DEFAULTS
    for name in key.split("."):
        value = value[name]
    return value


def message(config):
    with pytest.raises(UserError) as error:
        from_config(config)
    return str(error.value)


def test_defaults_make_the_round_trip():
    assert from_config(default_config()) == Experiment()
    assert to_dict(from_config(default_config())) == DEFAULTS
    assert json.loads(json.dumps(DEFAULTS)) == DEFAULTS


def test_a_changed_experiment_makes_the_round_trip():
    config = default_config()
    config.distill.length = 5
    config.tune.adalora.targets = ("q", "k")
    config.pretrain.optimizer.name = "lion"
    config.parse.adalora.target_rank = 3
    experiment = from_config(config)
    assert experiment.distill.length == 5 and experiment.distill.top_h == 10
    assert experiment.tune.adalora.targets == ("q", "k")
    assert experiment.pretrain.optimizer.name == "lion"
    assert experiment.parse.adalora.target_rank == 3
    again = from_config(ConfigDict(json.loads(json.dumps(to_dict(experiment)))))
    assert again == experiment and hash(again.tune) == hash(experiment.tune)


def test_a_partial_config_keeps_the_other_defaults():
    experiment = from_config(ConfigDict({"seed": 3, "candidates": {"num": 30}}))
    assert experiment == dataclasses.replace(
        Experiment(), seed=3, candidates=dataclasses.replace(Experiment().candidates, num=30)
    )


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("sede", "seed"),
        ("distil", "distill"),
        ("distill.lenght", "distill.length"),
        ("distill.tasks.ta.wieght", "distill.tasks.ta.weight"),
        ("tune.adalora.init_ranks", "tune.adalora.init_rank"),
        ("lm.t5.d_modell", "lm.t5.d_model"),
        ("data.storefront.user", "data.storefront.users"),
    ],
)
def test_an_unknown_key_names_the_nearest(key, meant):
    text = message(nested(key, 1))
    assert text == f"config.{key} does not exist; did you mean config.{meant}?"


OPEN = {"distill.tasks"}  # a mapping whose names are the user's


@pytest.mark.parametrize("section", sorted(set(sections(DEFAULTS)) - OPEN))
def test_no_section_takes_an_unknown_key(section):
    key = f"{section}.zzz".lstrip(".")
    assert message(nested(key, 1)).startswith(f"config.{key} does not exist; did you mean config.")


def test_every_key_refuses_a_wrong_type():
    for key in leaf_keys(DEFAULTS):
        bad = 1 if isinstance(at(key), (str, bool)) or at(key) is None else "one"
        text = message(nested(key, bad))
        assert text.startswith(f"config.{key} is {bad!r} (") and "must be" in text, text


@pytest.mark.parametrize("section", sections(DEFAULTS)[1:])
@pytest.mark.parametrize("bad", [3, "abc", None])
def test_a_section_is_no_single_value(section, bad):
    assert message(nested(section, bad)).startswith(f"config.{section} is {bad!r} (")


def test_types_are_strict_but_an_integer_is_a_float():
    assert from_config(nested("distill.temperature", 2)).distill.temperature == 2.0
    assert isinstance(from_config(nested("distill.temperature", 2)).distill.temperature, float)
    assert "float), but it must be of type int" in message(nested("distill.length", 8.0))
    assert "bool), but it must be of type int" in message(nested("seed", True))
    assert "bool), but it must be of type float" in message(nested("distill.temperature", True))
    assert "config.tune.adalora.targets is 3 (int)" in message(
        nested("tune.adalora.targets", ["q", 3])
    )
    assert math.isclose(from_config(nested("tune.adalora.warmup", 0.2)).tune.adalora.warmup, 0.2)


def test_more_teacher_items_than_candidates_names_both_keys():
    text = message(ConfigDict({"distill": {"top_h": 12, "num_candidates": 11}}))
    assert "distill.top_h is 12" in text and "distill.num_candidates = 11" in text
    assert from_config(ConfigDict({"distill": {"top_h": 11, "num_candidates": 11}}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lm.verbalizer", "last"),
        ("lm.tokenizer", "google/flan-t5-small"),
        ("teacher.name", "gru"),
        ("distill.select_by", "loss"),
        ("tune.loss_over", "all"),
        ("distill.weighting", "equal"),
        ("distill.tasks.ta.weight", -2.0),
        ("lm.t5.feed_forward_proj", "swish"),
    ],
)
def test_values_that_cannot_be_name_their_key(key, value):
    text = message(nested(key, value))
    assert key in text
    assert str(value) in text


@pytest.mark.parametrize("kind", ["first", "mean"])
@pytest.mark.parametrize("loss_over", ["catalogue", "candidates"])
def test_verbalizers_of_one_pass_go_with_either_loss(kind, loss_over):
    changes = {"lm": {"verbalizer": kind}, "tune": {"loss_over": loss_over}}
    experiment = from_config(ConfigDict(changes))
    assert (experiment.lm.verbalizer, experiment.tune.loss_over) == (kind, loss_over)


@pytest.mark.parametrize("kind", ["sequence", "index"])
def test_verbalizers_of_stated_candidates_need_the_loss_over_them(kind):
    text = message(nested("lm.verbalizer", kind))
    assert f"lm.verbalizer={kind}" in text and "tune.loss_over=candidates" in text
    changes = {"lm": {"verbalizer": kind}, "tune": {"loss_over": "candidates"}}
    changes["pretrain"] = {"text": {"full": 0.0}}  # whose texts have no lists
    assert from_config(ConfigDict(changes)).lm.verbalizer == kind


def test_the_anchor_needs_the_loss_over_the_catalogue():
    both = {"anchor": 0.5, "loss_over": "candidates"}
    text = message(ConfigDict({"tune": both}))
    assert text.startswith("tune.anchor is 0.5 and tune.loss_over 'candidates'")
    assert "set tune.anchor=0.0, or tune.loss_over=catalogue" in text
    for one in both:
        assert from_config(ConfigDict({"tune": {one: both[one]}}))
    assert "tune.anchor is -0.5" in message(nested("tune.anchor", -0.5))


def test_pretrained_weights_may_have_a_tokenizer_of_their_own_or_another():
    lm = {"weights": "google/flan-t5-small"}
    assert from_config(ConfigDict({"lm": lm})).lm.tokenizer == ""
    both = {**lm, "tokenizer": "elsewhere"}
    assert from_config(ConfigDict({"lm": both})).lm.tokenizer == "elsewhere"
    text = message(nested("lm.tokenizer", "elsewhere"))
    assert "lm.weights is not set" in text and "leave it empty" in text


def test_a_tuning_too_short_to_move_ranks_is_refused_at_the_start():
    text = message(ConfigDict({"tune": {"loop": {"steps": 12}}}))
    assert text.startswith("loop.steps is 12") and " adalora.interval 10" in text
    changes = {"loop": {"steps": 12}, "adalora": {"interval": 2}}
    assert from_config(ConfigDict({"tune": changes})).tune.loop.steps == 12


def test_unknown_key_message():
    assert unknown_key("a.lenght", ["a.length", "a.init"]) == (
        "config.a.lenght does not exist; did you mean config.a.length?"
    )


def test_leaf_keys():
    assert leaf_keys({"a": 1, "b": {"c": 2, "d": {"e": [3]}}}) == ["a", "b.c", "b.d.e"]
    assert "tune.adalora.targets" in leaf_keys(default_config().to_dict())


@pytest.mark.parametrize(
    ("distilled", "tuned", "message"),
    [
        (("random",), (), r"distill.controls is \('random',\): use each of shuffled, true"),
        (("true", "true"), (), "at most once"),
        (("true",), ("shuffled",), "tune.controls has 'shuffled', a prompt that stage 1 trains"),
    ],
)
def test_controls_of_stage_2_are_made_in_stage_1(distilled, tuned, message):
    config = default_config()
    config.distill.controls, config.tune.controls = distilled, tuned
    with pytest.raises(UserError, match=message):
        from_config(config)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tasks.rps.weight": 0.0}, "'true', whose texts have the weight of rps, which is 0"),
        ({"tasks.rps.share": 0.0}, "'shuffled', but ta alone has a share"),
        ({"tasks.rps.weight": 0.0, "controls": ("shuffled",)}, None),
        ({"tasks.rps.share": 0.0, "controls": ("true",)}, None),
        ({"tasks.rps.weight": 0.0, "weighting": "gradient_norm"}, None),
    ],
)
def test_controls_that_would_not_be_what_they_are_called(changed, message):
    config = default_config()
    config.tune.controls = ()
    config.distill.update_from_flattened_dict(changed)
    if message is None:
        from_config(config)
        return
    with pytest.raises(UserError, match=message):
        from_config(config)


def test_stage_2_can_do_without_the_controls_of_stage_1():
    config = default_config()
    config.distill.controls, config.tune.controls = (), ("none", "random")
    assert from_config(config).distill.controls == ()


def test_histories_are_padded_for_networks_alone():
    sasrec, markov = TeacherConfig(), TeacherConfig(name="markov")
    assert [sasrec.reads(longest) for longest in (0, 7, 10_000)] == [sasrec.max_length] * 3
    assert [markov.reads(longest) for longest in (0, 7, 10_000)] == [1, 7, markov.max_length]


@pytest.mark.parametrize(
    "shares", [(0.9, 0.1), (0.7, 0.3), (0.0, 0.1), (0.7, 0.0), (-0.1, 0.5), (0.6, 0.6)]
)
def test_a_prompt_has_users_to_train_to_select_and_to_be_reported_on(shares):
    train, valid = shares
    with pytest.raises(UserError, match=r"distill\.train_users is .*leave users to report on"):
        DistillConfig(train_users=train, valid_users=valid)
    assert DistillConfig(train_users=0.8, valid_users=0.1).train_users == 0.8


def test_every_method_has_stages_and_every_table_of_stages_a_method():
    assert tuple(STAGES) == METHODS
