"""DELRec and P2Rec in JAX: distill a conventional recommender into a language model.

Subpackages that do not depend on each other: ``data`` (corpus, split, candidates, prompts), ``teachers`` (SASRec and others),
``language`` (T5, soft prompt, AdaLoRA, verbalizers), ``training``, ``evaluation``; ``analysis`` makes tables and plots.
``config`` and ``workdir`` hold a run together, ``delrec``, ``p2rec`` and ``pretraining`` are the methods, ``stages`` runs them
in order, ``planning`` computes what a run would need, and ``cli`` is the entry point.
"""

__version__ = "0.1.0"
