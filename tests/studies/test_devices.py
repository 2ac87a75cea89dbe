"""The processes of a study share the GPUs of a machine, and leave a TPU to one of them."""

import pytest

from delrec_jax.errors import UserError
from delrec_jax.studies import command, devices, processes


def test_gpus_are_those_that_the_environment_lists_or_all(tmp_path):
    for name in ("nvidia3", "nvidia5", "nvidiactl", "nvidia-uvm", "tty0"):
        (tmp_path / name).touch()
    assert devices.visible_gpus({}, tmp_path) == ["0", "1"]
    assert devices.visible_gpus({"CUDA_VISIBLE_DEVICES": "4, GPU-ab,"}, tmp_path) == ["4", "GPU-ab"]
    assert devices.visible_gpus({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == []


@pytest.mark.parametrize(
    ("gpus", "slots", "wanted"),
    [
        (8, 2, ["0123", "4567"]),
        (8, 3, ["01", "23", "45"]),  # equally many, so that arms do not differ by their sums
        (2, 4, ["0", "1", "0", "1"]),
        (1, 2, ["0", "0"]),
        (4, 1, ["0123"]),
        (0, 2, ["", ""]),
    ],
)
def test_every_process_has_as_many(gpus, slots, wanted):
    names = [str(number) for number in range(gpus)]
    found = [devices.share_of(names, slot, slots) for slot in range(slots)]
    assert ["".join(share) for share in found] == wanted


def test_a_process_is_told_its_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    told = [processes._environment(slot, 2)["CUDA_VISIBLE_DEVICES"] for slot in range(2)]
    assert told == ["2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert processes._environment(0, 2)["CUDA_VISIBLE_DEVICES"] == ""


def test_a_tpu_is_for_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: name)
    assert not devices.has_tpu({}, tmp_path)
    (tmp_path / "accel0").touch()
    assert devices.has_tpu({}, tmp_path) and devices.has_tpu({"JAX_PLATFORMS": "tpu,cpu"}, tmp_path)
    assert not devices.has_tpu({"JAX_PLATFORMS": "cpu"}, tmp_path)
    monkeypatch.setattr(command, "has_tpu", lambda environment: True)
    with pytest.raises(UserError, match="--jobs=2: the chips of a TPU belong to one process"):
        command.leave_devices(2)
