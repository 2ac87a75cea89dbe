"""What a command that only asks a finished run must not load: each of these costs every `recommend` its time."""

import json
import os
import subprocess
import sys

from compiling import QUICK_ENVIRONMENT

# What trains, draws, fetches or tracks, and what reads tokenizers that are not our own.
HEAVY = {
    *("orbax", "grain", "transformers", "scipy", "sklearn", "matplotlib", "pooch", "requests"),
    *("optuna", "google.cloud.storage", "tensorboardX", "wandb", "mlflow", "pandas", "torch"),
    *("tensorflow", "tensorflow_datasets", "IPython"),
}
ASK = """
import json, sys
from delrec_jax.cli import main
main(sys.argv[1:])
print(json.dumps(sorted(sys.modules)))
"""
CONFIGURE = "import json, sys, delrec_jax.config; print(json.dumps(sorted(sys.modules)))"


def loaded(code, *arguments):
    """The names of all modules that a process has loaded in the end, and what it printed before."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **QUICK_ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *printed, names = done.stdout.splitlines()
    return set(json.loads(names)), "\n".join(printed)


def test_recommend_loads_only_what_it_needs(tiny_run):
    titles = "Tangled Stone Mystery Book One; Tangled Stone Mystery Book Two"
    asked = ("recommend", f"--workdir={tiny_run}", f"--history={titles}", "-k", "3")
    names, printed = loaded(ASK, *asked)
    assert "DELRec" in printed and "delrec_jax.serving.printing" in names
    assert names & HEAVY == set()


def test_a_config_loads_no_corpus_reader():
    names, _ = loaded(CONFIGURE)
    readers = {"delrec_jax.data.corpora.sources", "polars"}
    assert names & (HEAVY | readers) == set()


def test_the_check_sees_a_module_that_is_loaded():
    names, _ = loaded(f"import scipy\n{CONFIGURE}")
    assert names & HEAVY == {"scipy"}
