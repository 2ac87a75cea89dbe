import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from delrec_jax.config import Experiment
from delrec_jax.errors import UserError
from delrec_jax.workdir.session import CACHE, _machine, keep_compiled, session


@pytest.fixture
def settings():
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_compiled_programs_lie_beside_the_workdir(tmp_path, monkeypatch, settings):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    keep_compiled(tmp_path / "runs" / "one")
    place = jax.config.jax_compilation_cache_dir
    assert place.startswith(str(tmp_path / "runs" / CACHE))
    keep_compiled(tmp_path / "runs" / "two")
    assert jax.config.jax_compilation_cache_dir == place


def test_cpus_of_different_features_keep_programs_of_their_own(monkeypatch):
    """A program that was compiled on a newer CPU could crash on an older one."""
    places = []
    for features in ("fma avx2", "fma avx2 avx512f", "fma avx2"):
        text = f"processor : 0\nflags : {features}\nprocessor : 1\n"
        monkeypatch.setattr(Path, "exists", lambda path: True)
        monkeypatch.setattr(Path, "read_text", lambda path, text=text: text)
        places.append(_machine())
    assert places[0] == places[2] != places[1]


def test_a_place_named_by_the_environment_is_kept(tmp_path, monkeypatch, settings):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "mine"))
    before = jax.config.jax_compilation_cache_dir
    keep_compiled(tmp_path / "run")
    assert jax.config.jax_compilation_cache_dir == before


def test_where_nothing_can_be_kept_nothing_is_said(tmp_path, monkeypatch, settings):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    (tmp_path / "file").touch()  # no folder can be made here, by root neither
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        keep_compiled(tmp_path / "file" / "run")
        compilation_cache.reset_cache()
        assert jax.jit(lambda number: number * 17)(np.float32(2)) == 34
    compilation_cache.reset_cache()
    assert [str(one.message) for one in told] == []


def test_the_lock_is_given_back_however_it_ends(tmp_path):
    with pytest.raises(RuntimeError), session(tmp_path / "run", Experiment()):
        raise RuntimeError
    with session(tmp_path / "run", Experiment()):
        held = (tmp_path / "run" / ".lock").read_text()
        assert held.startswith("process ")
        again = pytest.raises(UserError, match="another run is using it")
        with again, session(tmp_path / "run", Experiment()):
            pass
    with session(tmp_path / "run", Experiment()):
        pass
