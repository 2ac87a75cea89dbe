"""A language model that a config outside of the package names, through `delrec run` of both methods."""

import json
from unittest import mock

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from seam_runs import (
    HERE,
    QUICK,
    check_killed_while_tuning,
    check_tuned,
    copy_before,
    watched,
    write_config,
)
from tiny_p2rec import PARSING
from tiny_storefront import delrec, open_workspace

from delrec_jax.errors import UserError
from delrec_jax.language.families import find_family
from delrec_jax.planning import plan as plan_module
from delrec_jax.planning.memory import stage_memory
from delrec_jax.planning.shapes import Assumed
from delrec_jax.planning.shardings import sharding_rows
from delrec_jax.planning.tasks import planned_tasks

BAG, ENCODER = (f"{HERE / 'toy_family.py'}:{name}" for name in ("BAG", "ENCODER"))
P2REC = (
    *QUICK,
    "--config.teacher.sasrec.width=8",
    *PARSING,
    "--config.parse.seeds=1",
    "--config.augment.teachers=('sasrec',)",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of a bag of words, the flag of its config, and its steps."""
    folder = tmp_path_factory.mktemp("bag")
    config = write_config(folder / "config.py", lm__family=BAG, tune__adalora__targets=("mix",))
    steps = watched("run", config, f"--workdir={folder / 'run'}", *QUICK)
    return folder / "run", config, steps


def test_it_is_begun_here_and_tuned(run):
    folder, _, steps = run
    check_tuned(folder, steps)
    begun = [moved for batch, moved, _ in steps if "answers" in batch]
    assert begun[-1] == {"embedding", "kernel"}
    assert "a bag of words, pre-trained here" in (folder / "report" / "index.html").read_text()
    params = load_file(folder / "lm" / "model" / "result.safetensors")
    assert {name.split("/")[0] for name in params} == {"words", "mix"}
    adapters = load_file(folder / "adapter" / "distilled" / "result.safetensors")
    assert {*adapters} == {"adapters/mix/A", "adapters/mix/B", "adapters/mix/E"}


def test_one_that_reads_no_kernels_in_8_bits_is_refused(run, tmp_path, capsys):
    workdir = tmp_path / "run"
    copy_before(run[0], workdir, "lm")
    with pytest.raises(SystemExit):
        delrec(
            "pretrain",
            run[1],
            f"--workdir={workdir}",
            *QUICK,
            "--config.lm.quantise=int8",
            "--update",
        )
    assert "lm.quantise is 'int8', but a bag of words reads no" in capsys.readouterr().err


def test_a_killed_run_ends_as_the_whole_one(run, tmp_path):
    whole, config, _ = run
    check_killed_while_tuning(whole, config, tmp_path / "run")


def test_the_plan_sees_its_arrays_and_sizes(run):
    experiment = open_workspace(run[0]).experiment
    assumed = Assumed(items=20, title_tokens=3)
    steps = planned_tasks(experiment, jax.devices()[:1], assumed)
    tables = {planned.stage: sharding_rows(planned) for planned in steps}
    names = {row.name: row for row in tables["tune"]["frozen"]}
    assert names["params/words/embedding"].axes == ("vocab", None)
    assert [row.name for row in tables["tune"]["trains"]] == [
        f"adapters/mix/{part}" for part in "ABE"
    ]
    for planned in steps:
        memory = stage_memory(experiment, planned, tables[planned.stage], assumed)
        assert memory.by_estimate > memory.resident > 0
    with mock.patch.object(plan_module, "fake_devices", lambda count: jax.devices()[:count]):
        text = plan_module.plan(experiment, devices=1, items=20, compile_for="no")
    assert "1 + 0 blocks of width 16, from lm.vocab_size; kept and computed in float32" in text


def refusal(capsys, *arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit):
        delrec(*arguments)
    said = capsys.readouterr().err
    return said[said.index("delrec: ") :].strip()


def test_adapters_that_meet_nothing_name_its_projections(run, tmp_path, capsys):
    whole, config, _ = run
    copy_before(whole, tmp_path / "run", "adapter", "records", "report")
    flags = (*QUICK, "--config.tune.adalora.targets=('q',)")
    line = refusal(capsys, "tune", config, f"--workdir={tmp_path / 'run'}", "--update", *flags)
    assert "['q'] match no projection: the model has mix" in line


def test_another_form_of_export_is_refused(run, tmp_path, capsys):
    where = f"--workdir={run[0]}"
    line = refusal(capsys, "export", where, "--format=hf", f"--output={tmp_path / 'hf'}")
    assert "lm.family=bag can only be exported with --format=adapter" in line
    delrec("export", where, "--format=adapter", f"--output={tmp_path / 'adapter'}")
    assert "adapters/mix/E" in load_file(tmp_path / "adapter" / "adapter.safetensors")


@pytest.fixture(scope="module")
def pretrained(run, tmp_path_factory):
    """What the bag learned, as a directory of pretrained weights with its tokenizer."""
    folder = tmp_path_factory.mktemp("pretrained")
    lm = run[0] / "lm"
    save_file(load_file(lm / "model" / "result.safetensors"), folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    for file in (lm / "tokenizer").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def encoder_config(path, pretrained, **settings):
    return write_config(path, lm__family=ENCODER, lm__weights=str(pretrained), **settings)


def test_p2rec_needs_an_encoder_alone(pretrained, tmp_path):
    config = encoder_config(
        tmp_path / "config.py",
        pretrained,
        method="p2rec",
        teacher__name="sasrec",
        parse__adalora__targets=("mix",),
    )
    steps = watched("run", config, f"--workdir={tmp_path / 'run'}", *P2REC)
    (parsed,) = json.loads((tmp_path / "run" / "preference" / "parse.json").read_text())
    assert np.isfinite(parsed["squared_error"]) and parsed["step"] in (0, 4, 8)
    parsing = [
        (moved, loss) for batch, moved, loss in steps if batch == {"ids", "counted", "targets"}
    ]
    assert np.isfinite([loss for _, loss in parsing]).all()
    assert [moved for moved, _ in parsing] == 8 * [{"kernel", "bias", "A", "B", "E"}]
    assert (tmp_path / "run" / "report" / "metrics.json").exists()


def test_what_answers_would_be_asked_for_is_named(pretrained, tmp_path, capsys):
    flags = (f"--workdir={tmp_path / 'run'}", *QUICK)
    config = encoder_config(tmp_path / "config.py", pretrained)
    line = refusal(capsys, "run", config, *flags)
    assert "lm.verbalizer=mean asks the language model for answers" in line
    assert "a bag of words only encodes texts" in line and "method=p2rec" in line
    config = write_config(
        tmp_path / "alone.py", lm__family=ENCODER, tune__adalora__targets=("mix",)
    )
    line = refusal(capsys, "run", config, *flags, "--update")
    assert "pretrain asks" in line and "set lm.weights" in line


def test_a_class_in_the_place_of_an_object_is_refused():
    with pytest.raises(UserError, match=r"lm\.family is .*BagFamily', a class: name an instance"):
        find_family(BAG.replace(":BAG", ":BagFamily"))
