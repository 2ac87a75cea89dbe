"""Config files: their argument, their ablations, one from another; and the shipped ones."""

import re
from pathlib import Path

import pytest

from delrec_jax.config import (
    ablated,
    base_config,
    default_config,
    from_config,
    leaf_values,
    read_config,
    to_dict,
)
from delrec_jax.data.corpora import prepare_corpus
from delrec_jax.errors import UserError

ROOT = Path(__file__).parents[1]
STUDIES = ROOT / "configs" / "studies"  # these have tests of their own
SHIPPED = sorted(set((ROOT / "configs").rglob("*.py")) - set(STUDIES.iterdir()))
STOREFRONT = ROOT / "configs" / "storefront.py"
IMPORTS = "from delrec_jax.config import ablated, base_config, default_config\n"
PLAIN = IMPORTS + "def get_config():\n    return default_config()\n"
SEEDED = IMPORTS + (
    "def get_config(seed=None):\n"
    "    config = default_config()\n"
    "    config.data.domain = 'movies'\n"
    "    config.seed = 0 if seed is None else int(seed)\n"
    "    return config\n"
)


def label(path):
    return str(path.relative_to(ROOT / "configs"))


def written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def message(path, argument=None):
    with pytest.raises(UserError) as error:
        read_config(path, argument)
    text = str(error.value)
    assert len(text.splitlines()) == 1
    return text


def values(config):
    """Every setting by its dotted key."""
    return leaf_values(to_dict(from_config(config)))


def differences(one, other):
    one, other = values(one), values(other)
    assert one.keys() == other.keys()
    return {key: other[key] for key in one if one[key] != other[key]}


def test_get_config_receives_the_argument(tmp_path):
    path = written(tmp_path / "a.py", SEEDED)
    assert read_config(path).seed == 0
    assert read_config(path, "7").seed == 7


def test_a_file_without_an_argument_works_and_refuses_one(tmp_path):
    path = written(tmp_path / "a.py", PLAIN)
    assert read_config(path) == default_config()
    text = message(path, "x")
    assert str(path) in text and "takes no argument" in text and "leave :x out" in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PLAIN.replace("()", "(name)", 1), ["needs an argument", "a.py:ARGUMENT"]),
        ("def get_config():\n    return", ["returns None", "ConfigDict"]),
        ("x = 1", ["a.py: defines no get_config()"]),
        ("def get_config(:", ["a.py: SyntaxError"]),
        ("import nowhere_at_all", ["a.py: ModuleNotFoundError"]),
        (
            IMPORTS + "def get_config():\n    return base_config(__file__, 'b.py')",
            ["b.py", "no such"],
        ),
        (
            IMPORTS + "def get_config():\n    return base_config(__file__, 'a.py')",
            ["RecursionError"],
        ),
    ],
)
def test_a_bad_file_is_named_in_one_line(tmp_path, text, words):
    found = message(written(tmp_path / "a.py", text))
    for word in words:
        assert word in found


def test_no_file_and_no_python_are_named(tmp_path):
    assert "nowhere.py: there is no such config file" in message(tmp_path / "nowhere.py")
    assert "is not a Python file" in message(written(tmp_path / "a.txt", PLAIN))


def test_a_base_is_found_from_the_file_that_asks(tmp_path):
    written(tmp_path / "base.py", SEEDED)
    file = str(written(tmp_path / "folder" / "a.py", ""))
    config = base_config(file, "../base.py", argument="5")
    assert differences(default_config(), config) == {"data.domain": "movies", "seed": 5}
    config.seed = 6
    assert base_config(file, "../base.py").seed == 0, "a base is read anew for each that asks"


def test_sections_alone_can_be_taken_over(tmp_path):
    written(tmp_path / "base.py", SEEDED)
    file = str(tmp_path / "a.py")
    config = base_config(file, "base.py", argument="5", only=("data", "lm"))
    assert differences(default_config(), config) == {"data.domain": "movies"}
    with pytest.raises(UserError, match=r"no section 'date': it has .*data"):
        base_config(file, "base.py", only=("date",))


def test_an_ablation_changes_its_settings_and_nothing_else():
    ablations = {"a": {"tune.anchor": 0.5, "seed": 3}, "b": {"distill.lenght": 3}}
    assert ablated(default_config(), None, ablations) == default_config()
    changed = ablated(default_config(), "a", ablations)
    assert differences(default_config(), changed) == ablations["a"]
    with pytest.raises(UserError, match=r"no ablation 'c': use one of a, b, or leave :c out"):
        ablated(default_config(), "c", ablations)
    with pytest.raises(UserError, match=r"distill\.lenght does not exist"):
        from_config(ablated(default_config(), "b", ablations))


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("listwise", {"distill.rps_label": "listwise"}),
        ("lora", {"tune.adalora.target_rank": 12}),
        ("no_anchor", {"tune.anchor": 0.0}),
        ("no_ta", {"distill.tasks.ta.share": 0.0}),
        (
            "no_rps",
            {
                "distill.tasks.rps.share": 0.0,
                "distill.controls": ["true"],
                "tune.controls": ["none", "random", "true"],
            },
        ),
        ("few_labels", {"split.label_users": 100}),
    ],
)
def test_the_ablations_of_the_storefront(name, changed):
    whole, config = read_config(STOREFRONT), read_config(STOREFRONT, name)
    assert differences(whole, config) == changed
    adalora = from_config(config).tune.adalora
    assert (adalora.target_rank == adalora.init_rank) == (name == "lora")


@pytest.mark.parametrize("name", ["llara", "llamarec"])
def test_the_rivals_train_low_rank_adapters_on_labels_alone(name):
    config = from_config(read_config(STOREFRONT, name))
    assert config.distill.loop.steps == 0 and config.tune.loop.steps > 0
    assert config.tune.adalora.target_rank == config.tune.adalora.init_rank
    assert config.tune.anchor == 0 and config.tune.controls == ("none",)


def test_an_unknown_ablation_of_the_storefront_names_the_others():
    assert "use one of listwise, lora, no_anchor" in message(STOREFRONT, "no_anker")


@pytest.mark.parametrize("path", SHIPPED, ids=label)
def test_a_shipped_config_can_run_and_says_how(path):
    config = read_config(path)
    from_config(config)
    doc = path.read_text().split('"""')[1]
    assert f"configs/{label(path)}" in doc and "Command: " in doc
    assert config.data.path == "", "a path of somebody's machine"
    asks = re.search(r"--config\.data\.(path|manual_dir)=PATH/TO/", doc)
    assert (config.data.corpus == "storefront") != bool(asks)


DELREC = ROOT / "configs" / "delrec"
CORPORA = ("ml100k", "steam", "beauty", "home_and_kitchen")
PUBLISHED = {
    **{"seed": 1234, "split.kind": "by_user", "candidates.num": 20, "lm.verbalizer": "first"},
    **{"prompts.max_tokens": 1065, "prompts.max_history": 10, "prompts.max_title_tokens": 0},
    **{"prompts.show_candidates": True, "prompts.show_ranks": True, "prompts.ta_example": 4},
    **{"prompts.pattern_first": True, "prompts.end_of_text": True, "prompts.cut_to_fit": True},
    **{"distill.length": 100, "distill.top_h": 10, "distill.num_candidates": 20},
    **{"distill.rps_label": "top1", "distill.weighting": "gradient_norm", "distill.positions": 1},
    **{"distill.batch_size": 20, "distill.loop.steps": 800, "distill.optimizer.warmup_steps": 400},
    **{"distill.optimizer.learning_rate": 5e-3, "distill.optimizer.weight_decay": 1e-5},
    **{"tune.batch_size": 20, "tune.loop.steps": 1400, "tune.optimizer.warmup_steps": 800},
    **{"tune.optimizer.learning_rate": 1e-4, "tune.optimizer.weight_decay": 1e-6},
    **{"tune.loss_over": "candidates", "tune.num_candidates": 20, "tune.positions": 1},
    **{"tune.adalora.init_rank": 320, "tune.adalora.alpha": 32.0, "tune.adalora.dropout": 0.05},
    **{"tune.adalora.targets": ["q", "v"], "teacher.name": "sasrec"},
    **{"teacher.sasrec.width": 100, "teacher.caser.width": 100, "teacher.gru4rec.width": 64},
    **{"teacher.caser.heights": [2, 3, 4], "teacher.caser.horizontal": 16},
    **{"teacher.caser.dropout": 0.4, "teacher.optimizer.name": "adam"},
    **{"teacher.optimizer.learning_rate": 1e-3, "mesh.fsdp": 1, "mesh.tensor": 1},
    **{
        f"{stage}.optimizer.{key}": value
        for stage in ("distill", "tune")
        for key, value in {"name": "lion", "clip": 2.0, "schedule": "linear"}.items()
    },
    **{f"{stage}.optimizer.final_fraction": 0.0 for stage in ("distill", "tune")},
}


@pytest.mark.parametrize("corpus", CORPORA)
def test_the_papers_corpora_have_the_published_settings(corpus):
    found = values(read_config(DELREC / f"{corpus}.py"))
    assert {key: found[key] for key in PUBLISHED} == PUBLISHED
    assert found["lm.weights"] == "google/flan-t5-xl"
    domains = {"ml100k": "movies", "steam": "games", "beauty": "items", "home_and_kitchen": "home"}
    assert found["data.domain"] == domains[corpus]
    changed = differences(
        read_config(DELREC / "reference.py"), read_config(DELREC / f"{corpus}.py")
    )
    assert all(key.startswith(("data.", "teacher.loop.", "teacher.batch_size")) for key in changed)
    assert "NOT TRAINED BY US" in (DELREC / f"{corpus}.py").read_text()


@pytest.mark.parametrize("corpus", CORPORA)
def test_an_argument_changes_the_size_the_verbalizer_or_the_machine_alone(corpus):
    path = DELREC / f"{corpus}.py"
    for size in ("small", "base", "large", "xl", "xxl"):
        changed = differences(read_config(path), read_config(path, size))
        assert changed.pop("lm.weights", "google/flan-t5-xl") == f"google/flan-t5-{size}"
        assert set(changed) <= {"lm.t5.dtype", "lm.t5.param_dtype"}
        both = differences(read_config(path, size), read_config(path, f"{size},pod,sequence"))
        assert both == {
            **{"mesh.data": 1, "mesh.fsdp": 16, "lm.verbalizer": "sequence"},
            **{"distill.batch_size": 64, "tune.batch_size": 64},
        }
        copies = differences(read_config(path, size), read_config(path, f"{size},v5p"))
        copies.pop("teacher.batch_size", None)  # some corpora have it anyway
        assert copies == {"distill.batch_size": 64, "tune.batch_size": 64}
        assert read_config(path, f"{size},v5p").teacher.batch_size == 64
    assert "'medium': use one of small, base" in message(path, "medium,pod")


@pytest.mark.parametrize(("size", "argument"), [("xl", "xl"), ("xxl", "xxl,pod")])
def test_the_older_names_are_those_settings(size, argument):
    older = read_config(DELREC / f"ml100k_flan_t5_{size}.py")
    assert not differences(older, read_config(DELREC / "ml100k.py", argument))


def test_a_shipped_config_that_lacks_its_path_says_so(tmp_path):
    experiment = from_config(read_config(ROOT / "configs" / "ml100k_mini.py"))
    with pytest.raises(UserError, match=r"data\.path: empty"):
        prepare_corpus(experiment.data, tmp_path)


def test_the_configs_that_documents_name_exist():
    documents = [
        ROOT / "README.md",
        *SHIPPED,
        *STUDIES.glob("*.py"),
        *(ROOT / "launch").rglob("*"),
        *(ROOT / "docs").rglob("*.md"),
    ]
    texts = [path.read_text() for path in documents if path.is_file()]
    named = {
        found for text in texts for found in re.findall(r"\bconfigs/[\w/]+\.py(?::[a-z_]+)?", text)
    }
    assert "configs/storefront.py:no_anchor" in named and len(named) > 10
    for name in named - {"configs/studies/NAME.py"}:
        path, _, ablation = name.partition(":")
        if (ROOT / path).parent == STUDIES:  # what follows it is a config
            assert (ROOT / path).is_file()
            continue
        from_config(read_config(ROOT / path, ablation or None))
