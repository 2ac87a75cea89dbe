"""The verbalizer's own parameters in the trees that train: beside the prompt in stage 1, beside the adapters in stage 2."""

from collections.abc import Mapping
from typing import Any

from delrec_jax.language.verbalizer import Verbalizer


def with_readout(trained: Mapping[str, Any], readout: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the tree with the readout, or as it is if the verbalizer has none: an empty branch would be lost in files."""
    return {**trained, "readout": dict(readout)} if readout else dict(trained)


def distilled_part(verbalizer: Verbalizer, readout: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters that stage 1 trains."""
    return {name: readout[name] for name in verbalizer.distilled if name in readout}
