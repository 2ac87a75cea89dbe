"""A title of more tokens than the language model can read is cut and told, before anything is trained."""

import numpy as np
from tiny_bert import RAW, write_bert, write_wordpiece
from tiny_storefront import delrec, open_workspace

from delrec_jax.stages.inputs import Inputs

MOST = RAW["max_position_embeddings"] - 2  # beside the first and the last special token


def test_a_long_title_is_cut_and_told(tmp_path, capsys):
    titles = [f"item {number}" for number in range(8)]
    titles[2] = "item " * 200
    titles[5] = "item " * (MOST - 1) + "item"  # as long as can be
    rows = [f"{user},{(user + place) % 8},{place}" for user in range(12) for place in range(5)]
    (tmp_path / "interactions.csv").write_text("\n".join(("user,item,time", *rows, "")))
    lines = [f"{item},{title.strip()}" for item, title in enumerate(titles)]
    (tmp_path / "items.csv").write_text("\n".join(("item,title", *lines, "")))
    size = write_wordpiece(tmp_path / "model", titles)
    model = write_bert(tmp_path / "model", RAW | {"vocab_size": size + 3})
    flags = (
        *("--config=configs/minilm/own.py", f"--config.data.path={tmp_path}"),
        *("--config.candidates.num=2", f"--config.lm.weights={model}"),
        "--config.tune.adalora.targets=('q',)",
        f"--workdir={tmp_path / 'run'}",
    )
    delrec("prepare", *flags)
    capsys.readouterr()
    delrec("pretrain", *flags)
    said = capsys.readouterr().err
    assert (
        f"1 titles have more tokens than the language model can read and are cut to {MOST}" in said
    )
    assert "'item item" in said and "with 200" in said
    vectors = Inputs(open_workspace(tmp_path / "run")).language.title_vectors
    assert np.isfinite(vectors).all() and len(vectors) == 8
    np.testing.assert_allclose(vectors[2], vectors[5], rtol=1e-5)
