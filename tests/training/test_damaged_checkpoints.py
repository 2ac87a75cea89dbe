"""Stored arrays that are damaged, swapped or of other settings are named; training goes on from the checkpoint before."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_loop import Killed, make_run

from delrec_jax.errors import UserError
from delrec_jax.training.checkpoints import Checkpoints, load_tree, save_tree
from delrec_jax.training.checksums import SUMS
from delrec_jax.training.loop import fit

pytestmark = pytest.mark.exact

NOISE = jax.random.normal(
    jax.random.key(0), (50, 20)
)  # does not compress: a bit of it is a bit of the file
LIKE = {"table": jnp.zeros((50, 20)), "count": jnp.int32(0)}


def tree(step, noise=NOISE):
    return {"table": noise + step, "count": jnp.int32(step)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Checkpoints of steps 4 and 8 of two runs."""
    room = tmp_path_factory.mktemp("made")
    for name, noise in (("one", NOISE), ("other", -NOISE)):
        with Checkpoints(room / name) as checkpoints:
            for step in (4, 8):
                checkpoints.save(step, tree(step, noise), {"at": step})
    return room


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made / "one", tmp_path / "checkpoints")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


def arrays_file(step_folder):
    """The file that holds the table: the largest."""
    return max((path for path in step_folder.rglob("*") if path.is_file()), key=_size)


def _size(path):
    return path.stat().st_size


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "swapped"])
def test_training_goes_on_from_the_checkpoint_before_a_damaged_one(made, folder, damage, capsys):
    file = arrays_file(folder / "8")
    if damage == "flipped":
        flip(file)
    elif damage == "cut":
        cut(file)
    elif damage == "gone":
        file.unlink()
    else:
        shutil.copy(arrays_file(made / "other" / "8"), file)
    with Checkpoints(folder) as checkpoints:
        arrays, meta = checkpoints.restore(LIKE)
        assert meta == {"at": 4} and checkpoints.steps == (4,)
        np.testing.assert_array_equal(arrays["table"], NOISE + 4)
        checkpoints.save(8, tree(8), {"at": 8})
    said = capsys.readouterr().err
    wrong = "is missing" if damage == "gone" else "is not as it was written"
    assert f"{file} {wrong}" in said
    aside = folder.parent / "damaged_checkpoints" / "8"
    assert f"the checkpoint of step 8 is not used, and is now in {aside}" in said
    assert (aside / SUMS).exists()
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.restore(LIKE)[1] == {"at": 8}


def test_a_bit_of_any_file_of_a_checkpoint(made, folder, tmp_path, capsys):
    """Whatever file it is in, the arrays that are restored are those of a whole checkpoint."""
    files = [path.relative_to(folder) for path in (folder / "8").rglob("*") if path.is_file()]
    assert len(files) > 15
    for file in files:
        here = shutil.copytree(made / "one", tmp_path / "again", dirs_exist_ok=True)
        flip(here / file)
        with Checkpoints(here) as checkpoints:
            arrays, meta = checkpoints.restore(LIKE)
        np.testing.assert_array_equal(arrays["table"], NOISE + meta["at"], err_msg=str(file))
        # Orbax's notes on when and how it was written are no part of what is restored.
        about = file.name in ("_CHECKPOINT_METADATA", "commit_success.txt")
        assert meta["at"] == (8 if about else 4), file
        said = capsys.readouterr().err
        # The sums of other files no longer fit where they were damaged themselves.
        assert (f"{here / '8'}/" in said if file.name == SUMS else str(file) in said) or about
        shutil.rmtree(tmp_path / "again")
        shutil.rmtree(tmp_path / "damaged_checkpoints", ignore_errors=True)


def test_a_whole_checkpoint_under_another_steps_name(folder, capsys):
    shutil.rmtree(folder / "8")
    shutil.copytree(folder / "4", folder / "8")
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.steps == (4,)
    assert f"{folder / '8' / SUMS} is that of step 4" in capsys.readouterr().err


def test_nothing_is_moved_where_no_other_checkpoint_is_left(folder):
    for step in (4, 8):
        flip(arrays_file(folder / str(step)))
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError, match="and there is no other checkpoint: restore it") as error:
        Checkpoints(folder)
    assert str(folder) in str(error.value) and "train from the beginning" in str(error.value)
    assert sorted(folder.rglob("*")) == before


def test_a_run_whose_best_checkpoint_is_damaged_is_refused_and_goes_on_with_a_copy(tmp_path):
    # As in `test_a_best_from_before_the_kill_is_still_the_best`: this peaks at step 4.
    def evaluate(params):
        return {"closeness": -abs(float(np.abs(np.asarray(params["w"])).sum()) - 0.8)}

    whole, _ = fit(make_run(tmp_path / "whole", evaluate=evaluate))
    run = tmp_path / "killed"
    with pytest.raises(Killed):
        fit(make_run(run, kill_after=7, evaluate=evaluate))
    best = run / "checkpoints" / "4"
    copy = shutil.copytree(best, tmp_path / "copy")
    flip(best / "meta" / "metadata")
    for _ in range(2):  # and again, when it is no longer there
        with pytest.raises(UserError) as error:
            fit(make_run(run, evaluate=evaluate))
        assert f"{best}: the checkpoint with the best parameters so far is" in str(error.value)
        assert "restore it from a copy, or remove" in str(error.value)
    shutil.copytree(copy, best)
    found, _ = fit(make_run(run, evaluate=evaluate))
    np.testing.assert_array_equal(found["w"], whole["w"])


@pytest.mark.parametrize(
    ("like", "words"),
    [
        ({"table": LIKE["table"]}, "holds a parameter count (int32 []) that nothing reads"),
        ({**LIKE, "bias": jnp.zeros(3)}, "holds no parameter bias (float32 [3])"),
        (
            {**LIKE, "table": jnp.zeros((50, 21))},
            "holds table of float32 [50, 20] in place of float32 [50, 21]",
        ),
        (
            {**LIKE, "table": jnp.zeros((50, 20), jnp.bfloat16)},
            "holds table of float32 [50, 20] in place of bfloat16 [50, 20]",
        ),
        ({"weights": LIKE["table"]}, "holds no parameter weights (float32 [50, 20]), and 2 diff"),
    ],
)
def test_a_parameter_that_differs_is_named(folder, like, words):
    with (
        Checkpoints(folder) as checkpoints,
        pytest.raises(UserError) as error,
    ):
        checkpoints.restore(like)
    assert words in str(error.value) and str(folder / "8") in str(error.value)


def changed_meta(folder, change):
    """Rewrites what is stored beside the arrays of step 8, as another version would have."""
    file = folder / "8" / "meta" / "metadata"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    (folder / "8" / SUMS).unlink()


def test_a_checkpoint_of_an_earlier_version_is_read(folder):
    changed_meta(folder, lambda stored: stored["meta"])
    with Checkpoints(folder) as checkpoints:
        arrays, meta = checkpoints.restore(LIKE)
    assert meta == {"at": 8}
    np.testing.assert_array_equal(arrays["table"], NOISE + 8)


def test_a_checkpoint_of_a_later_version_is_refused_by_its_format(folder):
    changed_meta(folder, lambda stored: {**stored, "format": 3})
    with Checkpoints(folder) as checkpoints, pytest.raises(UserError) as error:
        checkpoints.restore(LIKE)
    assert f"{folder / '8'}: a checkpoint of format 3, and this version of" in str(error.value)
    assert "reads formats up to 2: upgrade delrec_jax" in str(error.value)


@pytest.fixture
def result(tmp_path):
    path = tmp_path / "result.safetensors"
    save_tree(path, {"a": {"w": np.arange(24.0).reshape(4, 6)}, "b": np.ones(3)}, {"steps": 3})
    return path


def refused(path, *words):
    with pytest.raises(UserError) as error:
        load_tree(path)
    for word in (str(path), *words):
        assert word in str(error.value)


def test_a_bit_of_a_result_and_anothers_result_are_noticed(result, tmp_path):
    whole = result.read_bytes()
    content = bytearray(whole)
    content[-10] ^= 1  # within the arrays: safetensors itself takes them as they are
    result.write_bytes(content)
    refused(result, "is not the file that was written", "delete the stage's directory")
    other = tmp_path / "other.safetensors"
    save_tree(other, {"a": {"w": np.zeros((4, 6))}, "b": np.ones(3)}, {"steps": 3})
    shutil.copy(other, result)
    refused(result, "is not the file that was written", "result.json")
    result.write_bytes(whole)
    assert load_tree(result)[1] == {"steps": 3}


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"a": {"w": np.zeros((4, 6))}}, "holds no parameter b (float64 [3])"),
        (
            {"a": {"w": np.zeros((4, 6)), "v": np.zeros(1)}, "b": np.ones(3)},
            "holds a parameter a/v (float64 [1]) that nothing reads",
        ),
    ],
)
def test_a_missing_or_surplus_parameter_of_a_result_is_named(result, tmp_path, tree, words):
    save_tree(tmp_path / "other.safetensors", tree, {})
    shutil.copy(tmp_path / "other.safetensors", result)
    refused(result, words)


def test_a_result_of_an_earlier_version_is_read(result):
    result.with_suffix(".json").write_text('{"steps": 3}')
    tree, meta = load_tree(result)
    assert meta == {"steps": 3} and tree["b"].sum() == 3
