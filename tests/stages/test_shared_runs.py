"""Runs on weights that are not part of the folder, or that list candidates, shared and read back."""

import json
import shutil

import pytest
from hub_fake import hub
from same_answers import assert_same_answers
from tiny_storefront import delrec

import delrec_jax
from delrec_jax.errors import UserError

__all__ = ["hub"]
BASE = "ann/tiny"


def shared(workdir, folder, *flags):
    delrec("export", f"--workdir={workdir}", "--format=hub", f"--output={folder}", *flags)
    return folder


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def named(first_run, tmp_path_factory):
    """A folder that says by which name its language model is on the hub."""
    return shared(first_run, tmp_path_factory.mktemp("named") / "out", f"--base={BASE}")


def test_weights_of_a_folder_are_named_and_not_copied(first_run, pretrained, tmp_path):
    folder = shared(first_run, tmp_path / "out")
    listed = json.loads((folder / "delrec.json").read_text())
    assert listed["base"]["name"] == pretrained.name and not (folder / "base").exists()
    assert str(pretrained.parent) not in "".join(p.read_text() for p in folder.glob("*.[jm]*"))
    assert "give yours with `base=`" in (folder / "README.md").read_text()
    run = delrec_jax.load(first_run)
    assert_same_answers(run, delrec_jax.load(folder, base=pretrained))
    with pytest.raises(UserError, match=r"not part of it; give the folder or hub name .* base="):
        delrec_jax.load(folder, base=tmp_path / "none").embed_items()
    other = shutil.copytree(pretrained, tmp_path / "other")
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    with pytest.raises(UserError, match="these are other weights"):
        delrec_jax.load(folder, base=other).embed_items()


def test_weights_on_the_hub_are_fetched_by_their_name(hub, named, first_run, pretrained):
    hub.make(BASE, contents(pretrained) | {"pytorch_model.bin": b"a pickle"})
    assert_same_answers(delrec_jax.load(first_run), delrec_jax.load(named))
    assert "pytorch_model.bin" not in hub.fetched()
    assert f"base_model: {BASE}" in (named / "README.md").read_text()


def test_other_weights_of_that_name_are_refused(hub, named, pretrained, tmp_path):
    files = contents(pretrained)
    first = hub.make(BASE, files)
    hub.commit(BASE, files | {"config.json": files["config.json"] + b"\n"})
    with pytest.raises(
        UserError, match=f"its language model {BASE} has the SHA-256 .* other weigh"
    ):
        delrec_jax.load(named).embed_items()
    # With the commit that the run had, the later one does not matter.
    folder = shutil.copytree(named, tmp_path / "folder")
    listed = json.loads((folder / "delrec.json").read_text())
    listed["base"]["commit"] = first
    (folder / "delrec.json").write_text(json.dumps(listed))
    assert delrec_jax.load(folder).embed_items().shape[0] == 36


def test_weights_that_cannot_be_fetched(hub, named):
    with pytest.raises(
        UserError, match=f"its language model is {BASE}, not part of it; .* no such"
    ):
        delrec_jax.load(named).embed_items()


def test_candidates_of_the_teacher_are_listed_as_in_the_run(sequence_run, pretrained, tmp_path):
    folder = shared(sequence_run, tmp_path / "out")
    run = delrec_jax.load(sequence_run)
    assert run.listed == 8
    assert_same_answers(run, delrec_jax.load(folder, base=pretrained), k=3)


def test_a_teacher_that_p2rec_augmented_goes_with_it(both_run, tmp_path):
    found = delrec_jax.load(shared(both_run, tmp_path / "out"))
    assert {"teacher", "teacher_augmented"} <= set(found.systems)
    assert_same_answers(delrec_jax.load(both_run), found)
