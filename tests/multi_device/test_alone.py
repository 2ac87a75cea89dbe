from pathlib import Path


def test_a_single_process_of_a_pod_is_told_to_end_too(on_devices):
    """JAX's own service, which only several processes ask, would take the signal and tell nobody."""
    found = on_devices(Path(__file__).with_name("alone.py"), count=1)
    assert found == {"joined": True, "in a training": True, "elsewhere": True}
