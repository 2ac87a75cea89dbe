import chex
import jax.numpy as jnp
import numpy as np
import pytest

from delrec_jax.errors import UserError
from delrec_jax.training.checkpoints import Checkpoints, check_identity, load_tree, save_tree

pytestmark = pytest.mark.exact

TABLE = np.arange(24, dtype=np.float32).reshape(4, 6)
TREE = {
    "a": {"w": TABLE.T, "scalar": np.float32(3)},
    "strided": TABLE[::2, 1::3],
    "same": TABLE[::2, 1::3],
    "half": jnp.array([1.5, -2.0], jnp.bfloat16),
}


def test_a_tree_comes_back_as_it_was(tmp_path):
    path = tmp_path / "deep" / "result.safetensors"
    save_tree(path, TREE, {"steps": 3})
    tree, meta = load_tree(path)
    assert meta == {"steps": 3}
    chex.assert_trees_all_equal_shapes_and_dtypes(tree, TREE)
    chex.assert_trees_all_equal(tree, TREE)
    assert {file.name for file in path.parent.iterdir()} == {"result.safetensors", "result.json"}


def test_no_result_appears_when_writing_fails(tmp_path):
    path = tmp_path / "result.safetensors"
    with pytest.raises(TypeError):
        save_tree(path, TREE, {"not json": object()})
    assert not path.exists()


@pytest.mark.parametrize("damage", ["missing", "cut", "scrambled", "no json", "bad json"])
def test_a_damaged_result_names_itself_and_the_remedy(tmp_path, damage):
    path = tmp_path / "result.safetensors"
    save_tree(path, TREE, {})
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(whole[:-5])
    elif damage == "scrambled":
        path.write_bytes(b"\xff" * 100)
    elif damage == "no json":
        path.with_suffix(".json").unlink()
    else:
        path.with_suffix(".json").write_text("{")
    with pytest.raises(UserError, match="delete the stage's directory") as error:
        load_tree(path)
    assert str(path) in str(error.value)


def test_the_latest_checkpoint_is_restored_and_two_are_kept(tmp_path):
    like = {"x": jnp.zeros(3), "n": jnp.int32(0)}
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.restore(like) is None
        for step in (2, 4, 6):
            checkpoints.save(step, {"x": jnp.full(3, step / 7), "n": jnp.int32(step)}, {"at": step})
    assert sorted(p.name for p in (tmp_path / "c").iterdir() if p.name.isdigit()) == ["4", "6"]
    with Checkpoints(tmp_path / "c") as checkpoints:
        arrays, meta = checkpoints.restore(like)
    assert meta == {"at": 6}
    np.testing.assert_array_equal(arrays["x"], np.full(3, 6 / 7, np.float32))
    assert arrays["n"].dtype == jnp.int32 and arrays["n"] == 6


def test_arrays_may_change_right_after_a_save(tmp_path):
    x = np.zeros(100_000, np.float32)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"x": x}, {})
        x += 1
    with Checkpoints(tmp_path) as checkpoints:
        arrays, _ = checkpoints.restore({"x": jnp.zeros(100_000)})
    assert not np.asarray(arrays["x"]).any()


def test_another_experiments_checkpoint_is_refused_by_its_keys(tmp_path):
    stored = {"b": 1, "a": "x", "same": 0, "gone": 2, "c": 1, "e": 1}
    wanted = {"b": 2, "a": "y", "same": 0, "c": 2, "e": 2}
    with pytest.raises(UserError) as error:
        check_identity(tmp_path, stored, wanted)
    shown = "a ('x' there, 'y' now), b (1 there, 2 now), c (1 there, 2 now), e (1 there, 2 now)"
    assert f"{tmp_path}: its checkpoint belongs to another experiment: {shown} and 1 more;" in str(
        error.value
    )
    check_identity(tmp_path, stored, dict(stored))
