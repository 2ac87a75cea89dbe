"""A run whose frozen base is in 8 bits: what trains through it, and what is exported."""

import jax
import numpy as np
import pytest
from tiny_pretrained import FIRST, copy_beginning
from tiny_storefront import CONFIG, delrec, open_workspace

from delrec_jax.delrec import files
from delrec_jax.language import t5_files
from delrec_jax.language.adapter_files import load_adapter
from delrec_jax.language.t5_model import T5Model
from delrec_jax.language.weights import params_hash
from delrec_jax.stages.inputs import Inputs


@pytest.fixture(scope="module")
def run(tiny_run, pretrained, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("quantised") / "run"
    copy_beginning(tiny_run, workdir)
    flags = (*FIRST, f"--config.lm.weights={pretrained}", "--config.lm.quantise=int8")
    for stage in ("pretrain", "distill", "tune"):
        delrec(stage, CONFIG, f"--workdir={workdir}", *flags)
    return workdir


def test_the_exported_model_is_what_was_tuned(run, pretrained, tmp_path):
    ws = open_workspace(run)
    language = Inputs(ws).language
    query = language.params["encoder"]["block_0"]["SelfAttention"]["q"]
    assert query["kernel"].dtype == np.int8 and query["scale"].dtype == np.float32
    adapters = files.load_tuned(ws, "distilled")["adapters"]
    prompt = files.load_distilled(ws, "distilled")["prompt"]
    assert np.isfinite(prompt).all() and all(
        np.isfinite(leaf).all() for leaf in jax.tree.leaves(adapters)
    )
    for kind in ("hf", "adapter"):
        delrec("export", f"--workdir={run}", f"--format={kind}", f"--output={tmp_path / kind}")
    config = t5_files.read_config(tmp_path / "hf")
    merged = t5_files.load(tmp_path / "hf", config)
    ids, asked = np.array([[5, 9, 30, 7]]), np.array([[30]])
    ours = language.model.answers(language.params, ids, asked, adapters=adapters)
    np.testing.assert_allclose(T5Model(config).answers(merged, ids, asked), ours, atol=1e-4)
    # An adapter belongs to the weights that it was named after, not to their rounded form.
    plain = t5_files.load(pretrained, t5_files.read_config(pretrained))
    load_adapter(tmp_path / "adapter", base_hash=params_hash(plain))
    rounded = np.abs(T5Model(config).answers(plain, ids, asked, adapters=None) - ours).max()
    assert rounded > 1e-4
