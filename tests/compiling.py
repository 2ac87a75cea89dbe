"""How tests compile: quickly, unless they are marked `exact`; and with one cache for all processes of the session.

Tiny models spend their time in the compiler. Without XLA's and LLVM's optimizations, and by the emitters that need the
least of LLVM, a program compiles in about an eighth of the time. Tests of bit-exactness and of parity with PyTorch keep what
users get: the marker `exact`, at the head of a module.
"""

import os
import shutil
import tempfile
from contextlib import contextmanager
from unittest import mock

import jax
from jax._src import compiler

_OPTIONS = {"xla_cpu_parallel_codegen_split_count": 1}
if jax.__version_info__ < (0, 11):  # which later versions refuse: they have these emitters only
    _OPTIONS["xla_cpu_use_fusion_emitters"] = False
QUICK_ENVIRONMENT = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": " ".join(f"--{name}={value}".lower() for name, value in _OPTIONS.items()),
    "JAX_PLATFORMS": "cpu",
}
"""The environment of a process that compiles quickly."""

_CACHE = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


_usual_options = compiler.get_compile_options


def _quick_options(*args, env_options_overrides=None, **options):
    overrides = {**_OPTIONS, **(env_options_overrides or {})}
    return _usual_options(*args, env_options_overrides=overrides, **options)


@contextmanager
def _compiler(make_options, *, without_optimizations):
    before = jax.config.read("jax_disable_most_optimizations")
    # No public setting has these options; should JAX move the function, the patch fails and says so.
    with mock.patch.object(compiler, "get_compile_options", make_options):
        jax.config.update("jax_disable_most_optimizations", without_optimizations)
        try:
            yield
        finally:
            jax.config.update("jax_disable_most_optimizations", before)


def quick_compiler():
    """A context in which this process compiles quickly."""
    return _compiler(_quick_options, without_optimizations=True)


def usual_compiler():
    """A context in which this process compiles as users do."""
    return _compiler(_usual_options, without_optimizations=False)


def open_cache(config):
    """Makes the session's cache of programs, unless a worker inherits it or the caller's environment names another one."""
    if hasattr(config, "workerinput") or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    place = tempfile.mkdtemp(prefix="delrec-tests-compiled-")
    config.add_cleanup(lambda: shutil.rmtree(place, ignore_errors=True))
    for name, value in {"jax_compilation_cache_dir": place, **_CACHE}.items():
        os.environ[name.upper()] = str(value)  # for processes that import JAX later
        jax.config.update(name, value)
