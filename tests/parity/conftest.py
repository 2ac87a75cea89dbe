"""One thread for torch, and no look at these files where `-m` leaves them out.

Torch's threads spin while they wait, and next to any other process a test would take minutes.
"""

try:
    import torch
except ImportError:
    pass
else:
    torch.set_num_threads(1)


def pytest_ignore_collect(config):
    """Without torch, each of these files skips itself as it is read: `make test` is to report no skip."""
    return True if "not parity" in config.option.markexpr else None
