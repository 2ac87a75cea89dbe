"""DELRec and P2Rec in JAX: distil a conventional recommender into a language model.

The rooms that know nothing of one another: ``data`` (corpus, split, candidates, prompts), ``teachers`` (SASRec and others),
``language`` (T5, soft prompt, AdaLoRA, verbalizers), ``training``, ``evaluation``; ``analysis`` draws. ``config`` and
``workdir`` hold a run together, ``delrec``, ``p2rec`` and ``pretraining`` are the methods, ``stages`` puts them in order,
``planning`` computes what a run would need, and ``cli`` is the door.
"""

__version__ = "0.1.0"
