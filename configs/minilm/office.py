"""DELRec with a real sentence encoder (all-MiniLM-L6-v2) on Amazon Office Products.

Command: delrec run --config=configs/minilm/office.py --config.data.path=PATH/TO/office-products --workdir=runs/minilm_office
Data: atomic files (office-products.inter, office-products.item); or, downloaded, --config.data.corpus=amazon
      --config.data.edition=2014 --config.data.category=Office_Products --config.data.k_core=5.
Hardware and time: 2 CPU cores, 43 minutes beside other jobs, of which half are the controls.
Expect, `full` NDCG@10, mean and standard deviation of three seeds (docs/results/sentence_encoder.md): SASRec 0.083 +- 0.001,
the frozen encoder 0.070, with the distilled prompt 0.080 +- 0.004, DELRec 0.090 +- 0.002, tuned without a prompt 0.091 +-
0.001; hybrid of teacher and DELRec 0.104 +- 0.002; Markov + EASE + TF-IDF 0.131, which no hybrid with the tuned encoder beats
(sums with CEASE are younger: docs/results/p2rec_encoder.md).
"""

from ml_collections import ConfigDict

from delrec_jax.config import base_config, default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.update(corpus="atomic", domain="items")
    # Four titles of nine tokens, eight slots and the brief words are 64 tokens; only TA's texts are longer.
    config.prompts.update(wording="brief", max_tokens=96, max_history=4, max_title_tokens=9)
    config.prompts.cut_to_fit = True
    config.lm.update(
        family="bert",
        weights="sentence-transformers/all-MiniLM-L6-v2",
        verbalizer="embedding",
    )
    config.teacher = base_config(__file__, "../teachers/small.py").teacher
    distill = config.distill
    distill.update(length=8, top_h=50, num_candidates=100, loss_over="catalogue", positions=2)
    distill.update(init="vocabulary", select_by="likelihood", batch_size=32)
    distill.optimizer.learning_rate = 3e-2
    distill.loop.update(steps=150, evaluate_every=50, checkpoint_every=50)
    distill.tasks.ta.share = 0.1
    tune = config.tune
    tune.update(positions=4, batch_size=32)
    # The last three of six blocks: the backward pass ends there, so a step takes three quarters of the time.
    last = ("encoder/block_[345]/*/q", "encoder/block_[345]/*/v")
    tune.adalora.update(targets=last, init_rank=8, target_rank=8, alpha=16.0, dropout=0.0)
    tune.optimizer.update(learning_rate=2e-3, warmup_steps=50)
    tune.loop.update(steps=1000, evaluate_every=125, checkpoint_every=125, patience=3)
    tune.valid_users = 1000
    tune.controls = ("none", "random", "shuffled")
    config.baselines.hybrids += (
        "teacher+lm_embeddings",
        "markov+ease+lm_embeddings",
        "lm_tuned_no_prompt+teacher",
        "lm_tuned_random_prompt+teacher",
        "markov+ease+lm_tuned_no_prompt",
        "markov+ease+delrec",
        "teacher+markov+ease+lm_embeddings",
        "markov+cease+tfidf",
        "markov+lm_cease",
        "markov+lm_cease+tfidf",
        "teacher+markov+lm_cease+tfidf",
        "markov+lm_cease+tfidf+delrec",
        "teacher+markov+cease+tfidf",
        "teacher+markov+cease+tfidf+lm_tuned_no_prompt",
        "teacher+markov+cease+tfidf+delrec",
        "teacher+markov+ease+tfidf+lm_tuned_no_prompt",
        "teacher+markov+ease+tfidf+delrec",
    )
    return config
