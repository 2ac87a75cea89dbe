"""A run on pretrained weights: from `lm.weights` through every stage, and what is refused."""

import json
import os
import shutil
import time
from dataclasses import replace
from unittest import mock

import chex
import jax
import numpy as np
import pytest
from test_tiny_run import FEWER_SYSTEMS
from tiny_pretrained import EXTRA_ROWS, FIRST, copy_beginning, write_pretrained
from tiny_storefront import CONFIG, delrec, open_workspace

from delrec_jax.errors import UserError
from delrec_jax.language import hub
from delrec_jax.language.layer_stacking import unstack_layers
from delrec_jax.language.mean_scoring import MEAN
from delrec_jax.stages.inputs import Inputs
from delrec_jax.workdir import weight_files
from delrec_jax.workdir.kept_files import WEIGHTS_NOTE
from delrec_jax.workdir.language_scorer import LanguageScorer, LanguageSystem
from delrec_jax.workdir.weight_files import check_unchanged, hashed


def language_of(run):
    ws = open_workspace(run)
    return Inputs(ws).language


def refusal(capsys, *arguments):
    """The one line that a command ends with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        delrec(*arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip()
    line = said[said.index("delrec: ") :]
    assert len(line.splitlines()) == 1
    return line


def test_every_stage_runs_on_weights_that_it_did_not_train(first_run, pretrained):
    rows = json.loads((first_run / "report" / "metrics.json").read_text())
    for protocol in ("full", "sampled-8", "rerank-8"):
        assert {row["system"] for row in rows if row["protocol"] == protocol} == FEWER_SYSTEMS
    made = {path.name for path in (first_run / "lm").iterdir()}
    kept = {"base.json", "shared_titles.json", "stage.json", "title_vectors.npz", WEIGHTS_NOTE}
    assert made == kept
    base = json.loads((first_run / "lm" / "base.json").read_text())
    assert base == {"weights": str(pretrained), "fingerprint": hub.fingerprint(pretrained)}


def test_the_report_names_the_weights_and_the_size_that_they_have(
    first_run, sequence_run, pretrained
):
    for run in (first_run, sequence_run):
        page = (run / "report" / "index.html").read_text()
        assert "pre-trained here" not in page and str(pretrained) in page
        assert "d_model 16, 1+1 layers" in page


@pytest.mark.parametrize("run", ["first_run", "sequence_run"])
def test_slots_begin_behind_the_table_and_the_weights_are_those_of_the_file(tiny_run, run, request):
    own, adopted = language_of(tiny_run), language_of(request.getfixturevalue(run))
    ids = own.tokenizer.vocab_size
    assert adopted.tokenizer.vocab_size == ids == own.slots[0]
    assert adopted.slots.tolist() == [ids + EXTRA_ROWS + slot for slot in range(3)]
    assert ("blocks" in adopted.params["encoder"]) == (run == "sequence_run")
    params = unstack_layers(adopted.params)
    assert len(params["shared"]["embedding"]) == ids + EXTRA_ROWS
    params["shared"] = {"embedding": params["shared"]["embedding"][:ids]}
    params["lm_head"] = {"kernel": params["lm_head"]["kernel"][:, :ids]}
    chex.assert_trees_all_equal(params, own.params, strict=True)


@pytest.mark.parametrize("prompted", [False, True])
def test_the_same_weights_give_the_same_scores_wherever_they_come_from(
    tiny_run, first_run, prompted
):
    prompt = jax.random.normal(jax.random.key(0), (3, 16)) if prompted else None
    found = []
    for run in (tiny_run, first_run):
        language = language_of(run)
        language = replace(language, ranker=replace(language.ranker, verbalizer=MEAN))
        scorer = LanguageScorer(language)
        pattern = language.slots if prompted else np.zeros(0, np.int32)
        system = LanguageSystem(pattern, prompt)
        ids = scorer.texts(system, [np.array([1, 5]), np.array([30, 2])])
        found.append(np.asarray(scorer.catalogue(system, ids)))
    assert found[0].std() > 0.1
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_prompts_need_a_tokenizer_but_no_weights(tiny_run, tmp_path, capsys):
    copy_beginning(tiny_run, tmp_path)
    tokenizer = tiny_run / "lm" / "tokenizer"
    flags = ("--config.lm.weights=google/flan-t5-small", f"--config.lm.tokenizer={tokenizer}")
    order = ("--config.prompts.pattern_first=True", "--config.prompts.end_of_text=True")
    capsys.readouterr()
    delrec("prompts", CONFIG, f"--workdir={tmp_path}", *FIRST, *flags, *order, "--n=1")
    out = capsys.readouterr().out
    texts = [part.splitlines() for part in out.split("== ")[1:]]
    assert [name.partition(":")[0].split()[-1] for name, *_ in texts] == ["(TA)", "(RPS)", "(LSR)"]
    for _, text, mask, *_ in texts:
        assert text.index("[P0] [P1] [P2]") < text.index("The user has purchased")
        assert text.endswith("<extra_id_0> </s>") and mask.endswith("^.") and mask.count("^") == 1
    assert not (tmp_path / "lm").exists()


def test_a_changed_byte_stops_the_next_stage(tiny_run, pretrained, tmp_path, capsys):
    copy_beginning(tiny_run, tmp_path / "run")
    base = shutil.copytree(pretrained, tmp_path / "base")
    flags = (CONFIG, f"--workdir={tmp_path / 'run'}", *FIRST, f"--config.lm.weights={base}")
    delrec("pretrain", *flags)
    file = base / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    line = refusal(capsys, "distill", *flags)
    for words in (f"lm.weights={base}", "base.json", "restore the original weights", "--workdir"):
        assert words in line
    assert hub.fingerprint(base) in line and hub.fingerprint(pretrained) in line
    assert not list((tmp_path / "run" / "prompt").glob("*/*")), "nothing was trained"
    file.write_bytes(whole)
    assert len(language_of(tmp_path / "run").slots) == 3


def test_weights_are_read_again_only_if_a_file_changed(pretrained, tmp_path):
    base, own = shutil.copytree(pretrained, tmp_path / "base"), hub.fingerprint(pretrained)
    file = base / "model.safetensors"
    with mock.patch.object(hub, "fingerprint", wraps=hub.fingerprint) as counted:

        def readings(made_at):
            """How often two looks read the weights, when the file is as old as that."""
            counted.reset_mock()
            os.utime(file, ns=(made_at, made_at))
            assert hashed(tmp_path, base) == hashed(tmp_path, base) == own
            return counted.call_count

        hour = 3600 * 10**9
        assert readings(time.time_ns() - hour) == 1
        assert readings(time.time_ns() - 2 * hour) == 1
        assert readings(time.time_ns()) == 2, "the next change could leave the same time"
        moved = base.rename(tmp_path / "moved")
        counted.reset_mock()
        assert hashed(tmp_path, moved) == own and counted.call_count == 1


def test_another_process_compares_the_sizes_of_its_own_copy(pretrained, tmp_path):
    base, own = shutil.copytree(pretrained, tmp_path / "base"), hashed(tmp_path, pretrained)
    with (
        mock.patch.object(weight_files, "is_main", return_value=False),
        mock.patch.object(weight_files, "as_main_sees", return_value=True) as same,
        mock.patch.object(hub, "fingerprint", side_effect=AssertionError("process 0 does that")),
    ):
        check_unchanged(tmp_path, base, name="base", begun=own)
        (base / "config.json").write_bytes(b" " + (base / "config.json").read_bytes())
        with pytest.raises(
            UserError, match=r"base/config\.json does not have the \d+ bytes that process 0"
        ):
            check_unchanged(tmp_path, base, name="base", begun=own)
        same.return_value = False
        with pytest.raises(UserError, match="has SHA-256 another one, but"):
            check_unchanged(tmp_path, base, name="base", begun=own)


def test_a_tokenizer_with_more_ids_than_the_table_has_rows(tiny_run, tmp_path, capsys):
    copy_beginning(tiny_run, tmp_path / "run")
    write_pretrained(tiny_run, tmp_path / "base", extra_rows=-1)
    flags = (CONFIG, f"--workdir={tmp_path / 'run'}", *FIRST)
    line = refusal(capsys, "pretrain", *flags, f"--config.lm.weights={tmp_path / 'base'}")
    ids = language_of(tiny_run).tokenizer.vocab_size
    assert f"{ids - 1} rows" in line and f"{ids} ids" in line and "lm.tokenizer" in line


def test_a_tokenizer_of_another_directory(tiny_run, pretrained, tmp_path, capsys):
    copy_beginning(tiny_run, tmp_path / "run")
    base = shutil.copytree(pretrained, tmp_path / "base")
    for file in base.glob("tokenizer*"):
        file.unlink()
    flags = (CONFIG, f"--workdir={tmp_path / 'run'}", *FIRST, f"--config.lm.weights={base}")
    line = refusal(capsys, "pretrain", *flags)
    assert "tokenizer.json" in line and "lm.tokenizer" in line
    delrec("pretrain", *flags, "--update", f"--config.lm.tokenizer={pretrained}")
    assert language_of(tmp_path / "run").tokenizer.name == str(pretrained)


def test_weights_that_are_not_there(tiny_run, tmp_path, capsys):
    copy_beginning(tiny_run, tmp_path / "run")
    flags = (CONFIG, f"--workdir={tmp_path / 'run'}", *FIRST)
    absent, empty = tmp_path / "absent", tmp_path / "empty"
    empty.mkdir()
    line = refusal(capsys, "pretrain", *flags, f"--config.lm.weights={absent}")
    assert (
        f"{absent}: no such directory, and not a hub name (such as google/flan-t5-small) either"
        in line
    )
    line = refusal(capsys, "pretrain", *flags, "--update", f"--config.lm.weights={empty}")
    assert f"{empty}/config.json: not there" in line


@pytest.mark.parametrize("key", ["tokenizer", "prefix"])
def test_what_belongs_to_weights_is_refused_without_them_before_any_stage(tmp_path, capsys, key):
    flag = f"--config.lm.{key}=elsewhere"
    line = refusal(capsys, "run", CONFIG, f"--workdir={tmp_path / 'run'}", *FIRST, flag)
    assert f"lm.{key} is 'elsewhere'" in line and "lm.weights" in line
    assert not (tmp_path / "run").exists()
