"""DELRec and P2Rec in JAX: distill a conventional recommender into a language model.

In Python, with `import delrec_jax as delrec`:

    recommender = delrec.run(delrec.load_config("storefront"), "runs/storefront")
    recommender.recommend(["Toy Story", "Heat"], k=10)

Rooms that do not depend on each other: ``data`` (corpus, split, candidates, prompts), ``teachers`` (SASRec and others),
``language`` (T5, soft prompt, AdaLoRA, verbalizers), ``training``, ``evaluation``; ``analysis`` makes tables and plots.
``config`` and ``workdir`` hold a run together, ``delrec``, ``p2rec`` and ``pretraining`` are the methods, ``stages`` runs them
in order, ``serving`` asks a finished run, ``planning`` computes what a run would need, ``results`` and ``studies`` compare
runs. ``api`` is what Python sees, ``cli`` what the terminal does.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from delrec_jax.api.estimator import DELRecModel
    from delrec_jax.api.frames import from_frame
    from delrec_jax.api.runs import load, load_config, run, run_stage
    from delrec_jax.errors import UserError
    from delrec_jax.serving.recommender import Recommender

__version__ = "0.2.0"

__all__ = [
    "DELRecModel",
    "Recommender",
    "UserError",
    "from_frame",
    "load",
    "load_config",
    "run",
    "run_stage",
]

# Loaded when first used: JAX and what stands on it take seconds.
_HOMES = {
    "DELRecModel": "api.estimator",
    "Recommender": "serving.recommender",
    "UserError": "errors",
    "from_frame": "api.frames",
    "load": "api.runs",
    "load_config": "api.runs",
    "run": "api.runs",
    "run_stage": "api.runs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
