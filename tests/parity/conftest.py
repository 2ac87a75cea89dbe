"""One thread for torch: its threads spin while they wait, and beside any other process a test would take minutes."""

try:
    import torch
except ImportError:
    pass
else:
    torch.set_num_threads(1)
