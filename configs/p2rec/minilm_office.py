"""P2Rec end to end on Amazon Office Products with a real sentence encoder, all-MiniLM-L6-v2.

Command: delrec run --config=configs/p2rec/minilm_office.py --config.data.path=PATH/TO/office-products
         --workdir=runs/p2rec_minilm_office
         (SASRec and EASE alone, which is what decides: --config.augment.teachers="('sasrec','ease')")
Data: atomic files (office-products.inter, office-products.item).
Hardware and time: SASRec and EASE alone with three seeds and all controls 33 minutes on 2 CPU cores, shared with other work.
Expect, `full` NDCG@10, mean and standard deviation of three seeds (docs/results/p2rec_encoder.md): SASRec 0.083 +- 0.001,
augmented 0.099 +- 0.002; with the untuned encoder 0.095 +- 0.001, with shuffled titles or random vectors 0.083; EASE 0.111,
augmented 0.129, with the words of titles (CEASE) 0.129; Markov + CEASE with title vectors + TF-IDF 0.133.
"""

from ml_collections import ConfigDict

from delrec_jax.config import base_config


def get_config() -> ConfigDict:
    config = base_config(__file__, "office.py")
    config.lm.update(family="bert", weights="sentence-transformers/all-MiniLM-L6-v2")
    config.parse.max_tokens = 256
    config.parse.optimizer.learning_rate = 1e-3
    config.augment.update(way="initialise", reduce="half_whitened", start_std=0.1)
    config.augment.teachers += ("ease",)
    config.baselines.hybrids += (
        "markov+cease+tfidf",
        "teacher+markov+cease+tfidf",
        "markov+lm_cease",
        "markov+lm_cease+tfidf",
        "teacher+markov+lm_cease+tfidf",
        "teacher_augmented+markov+lm_cease+tfidf",
        "teacher_augmented+markov",
        "teacher_augmented+markov+tfidf",
        "teacher_augmented+tfidf",
        "markov+ease+teacher_augmented",
        "teacher_augmented+markov+ease+tfidf",
        "teacher+teacher_augmented+markov+ease+tfidf",
        # The strongest sum without a language model is SASRec's with words in CEASE: the same with the encoder in each place.
        "markov+cease+lm_cease+tfidf",
        "teacher+markov+cease+lm_cease+tfidf",
        "teacher_augmented+markov+cease+tfidf",
        "teacher_augmented+markov+cease+lm_cease+tfidf",
        "teacher_augmented_random_vectors+markov+cease+tfidf",
    )
    return config
