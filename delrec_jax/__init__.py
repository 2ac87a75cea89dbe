"""DELRec and P2Rec in JAX: distil a conventional recommender into a language model.

The rooms, in the order the data walks through them: ``data`` (corpus, split,
candidates, prompts), ``teachers`` (SASRec, popularity), ``language`` (T5, soft prompt,
AdaLoRA, verbalizer), ``objectives`` (the tasks' losses), ``training``, ``evaluation``,
``analysis``; ``stages`` is the only place where they meet, ``cli`` the only door.
"""

__version__ = "0.1.0"
