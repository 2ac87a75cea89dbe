"""`launch/` as a whole: small, documented, and in step with the command line."""

import re

import pytest
from launch_files import FILES, LAUNCH, LAUNCHERS, label

from delrec_jax.command_help import COMMANDS
from delrec_jax.config import default_config, leaf_keys

README = (LAUNCH / "README.md").read_text()
MAX_LINES = 60


@pytest.mark.parametrize("path", LAUNCHERS, ids=label)
def test_a_launcher_is_short_and_documented(path):
    assert path.read_text().count("\n") < MAX_LINES
    assert f"`{label(path)}`" in README


def test_the_readme_names_only_files_that_exist():
    named = set(re.findall(r"launch/([\w./-]+\w)", README))
    named |= set(re.findall(r"`([\w/-]+\.(?:sh|sbatch|yaml))`", README))
    assert named
    assert named <= {label(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=label)
def test_the_keys_and_commands_that_are_passed_exist(path):
    known = leaf_keys(default_config().to_dict())
    passed = set(re.findall(r"--config\.([a-z_][\w.]*)", path.read_text()))
    assert passed <= set(known)
    commands = set(re.findall(r'delrec"? ([a-z]+) --config', path.read_text()))
    assert commands <= set(COMMANDS)


@pytest.mark.parametrize("path", [p for p in LAUNCHERS if p.suffix != ".yaml"], ids=label)
def test_every_setting_is_in_the_readme(path):
    settings = set(re.findall(r"\$\{([A-Z_]+):[-?]", path.read_text()))
    theirs = {name for name in settings if name.startswith(("SLURM_", "JAX_", "TMP"))}
    for name in settings - theirs:
        assert re.search(rf"`{name}\b", README), name


def test_all_of_it_is_read():
    assert {"gpu.sh", "slurm.sbatch", "tpu_vm.sh", "Dockerfile"} <= set(map(label, LAUNCHERS))
    assert {"gke/tpu-jobset.yaml", "gke/gpu-jobset.yaml"} <= set(map(label, LAUNCHERS))
