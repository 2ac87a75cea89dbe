"""The settings of DELRec's published program, as far as they are settings; the paper's four corpora are beside this file.

Command: delrec prepare --config=configs/delrec/reference.py:base --config.data.path=PATH/TO/NAME --workdir=runs/name
         then delrec teach and delrec prompts with the same flags show the texts: they need no weights, only the tokenizer
         (of lm.weights, or --config.lm.tokenizer=PATH/TO/TOKENIZER); delrec run needs the weights.
Arguments, joined by commas (such as :base,sequence or :xxl,pod):
  small, base, large, xl, xxl   Flan-T5 of this size from the Hugging Face hub; without one: xl, as published.
  first, mean, sequence         the verbalizer; without one: first, as published. A step over n texts with 20 candidates each
                                encodes n texts under all three. `first` and `mean` then read one position of the decoder per
                                text; `sequence` decodes 20 titles per text, each padded to the longest title of the catalogue
                                (ML-100K 30, Steam 34, Beauty 272 tokens): 600 to 5,440 positions beside an encoder's 1,088.
                                `first` cannot tell titles with the same first token apart (two thirds of ML-100K's: use it
                                to compare with the paper); `mean` asks one position for all tokens of a title, where Flan-T5
                                was trained to predict only the first; `sequence` asks for the title as Flan-T5 writes it:
                                use it if you do not compare. Nothing of this was measured with Flan-T5's weights.
  pod                           16 TPU v5e chips (4x4) instead of one device: weights split over all of them, batches of 64.
                                `delrec plan --config=configs/delrec/reference.py:xxl,pod --devices=16 --chip=v5e` says 14.2 of
                                15.8 GiB (compiled for CPU; 10.8 by the estimate), and expects 21 % MFU and 30 texts/s in stage
                                2. At 1,065 tokens and rank 320 a batch of 256 does not fit; with
                                --config.prompts.max_tokens=512 --config.tune.adalora.init_rank=12 it does, and 27 % MFU are
                                expected.
  v5p                           32 or 64 TPU v5p chips: a copy of the weights on each, batches of 64. `plan` expects 335 texts/s
                                of 64 chips in stage 2, and 11 % more with batches of 256.
                                Larger batches than the published 20 are more texts per step, in as many steps: they train
                                differently. All of this is by formula; no TPU was used.
Hardware, by the estimate of `delrec plan` alone: one H100 for any size (small 3.6, base 7.6, large 9.1, xl 20.4, xxl 51.0 GiB).
NOT TRAINED BY US: the weights could not be downloaded where this was written. Accuracy and time are unknown.

As published: candidates (20) and ranks 2 to 10 in the text, whole titles, 1,065 tokens, 100 slots before the history,
`</s>`; top-1 labels, weights by gradient norm, one example per user and task; Lion, clip 2.0; stage 1: rate 5e-3, decay 1e-5,
warm-up 400 of 800 steps; stage 2: 1e-4, 1e-6, 800 of 1,400; both linear to 0; AdaLoRA of rank 320, alpha 32, dropout 0.05 on
q and v; SASRec of width 100 with one block and head, Caser of 100 with 16 filters, GRU4Rec of 64; users split 8:1:1; seed 1234.

What differs, and the knob:
  the wording; TA lists candidates after the history; ranks are named before the question, not after MASK   (no knob)
  histories: the latest 10 items of users of any length                                    prompts.max_history, data.min_length
  a text that is too long loses its oldest items, then the ends of its longest titles;
  the program cuts off its end, the question                                                             prompts.cut_to_fit
  one prompt for all tasks; a batch of 20 has about 10 texts of TA and 10 of RPS (20 each)    distill.batch_size, .tasks.*.share
  70 % of the training users train the prompt, 10 % select it, the others are asked        distill.train_users, .valid_users
  the prompt starts like rows of the token table                                                                distill.init
  training ends where the schedule does (the program: up to 1,000 and 2,000 epochs)                     *.loop.steps, .patience
  no dropout within Flan-T5 (the program trains both stages with its own, 0.1)                stage 2 alone: lm.t5.dropout_rate
  the weights by gradient norm are constants to the gradient and look at all of it; the program's pass a gradient
  through the loss, and take the norm of its first tensor alone                                          distill.weighting
  AdaLoRA's penalty is added to the loss (the program computes a loss of its own, without it)      tune.adalora.orthogonality
  stage 1 is selected by agreement with the teacher, stage 2 by NDCG@10 (HR@1, HR@5 and NDCG@5 together)         *.select_by
  TA too is asked once for each user; the program draws a user and a position for each text                     (no knob)
  titles are as people write them: "The" and "A" come first, so that a fifth of ML-100K's begin with "The",
  and the ties of `first` are many more than in the corpus as it stands                                         (no knob)
  Lion in float32; the program's is 8-bit                                                                       (no knob)
  ranks fall from 320 to 8 on average (the program set peft's default and never applied it)                    tune.adalora.*
  losses and ranks are over the 20 candidates; the program's are over all classes              candidates.num, tune.loss_over
  negatives are unseen and differ; ties get their mean rank                                                     (no knob)
  teachers learn from training items alone, with a label at every position, read up to 50 items (5) and stop by
  validation (600 epochs); Adam 1e-3 for all (GRU4Rec's program: Adagrad 0.01)                                     teacher.*
"""

from ml_collections import ConfigDict

from delrec_jax.config import ablated, default_config

_FLOAT32 = {"lm.t5.dtype": "float32", "lm.t5.param_dtype": "float32"}
ARGUMENTS = {
    "small": {"lm.weights": "google/flan-t5-small", **_FLOAT32},
    "base": {"lm.weights": "google/flan-t5-base", **_FLOAT32},
    "large": {"lm.weights": "google/flan-t5-large"},
    "xl": {"lm.weights": "google/flan-t5-xl"},
    "xxl": {"lm.weights": "google/flan-t5-xxl"},
    "first": {"lm.verbalizer": "first"},
    "mean": {"lm.verbalizer": "mean"},
    "sequence": {"lm.verbalizer": "sequence"},
    "pod": {
        **{"mesh.data": 1, "mesh.fsdp": 16, "mesh.tensor": 1},
        **{"distill.batch_size": 64, "tune.batch_size": 64},
    },
    "v5p": {
        **{"mesh.data": -1, "mesh.fsdp": 1, "mesh.tensor": 1, "teacher.batch_size": 64},
        **{"distill.batch_size": 64, "tune.batch_size": 64},
    },
}


def get_config(argument: str | None = None) -> ConfigDict:
    config = default_config()
    config.seed = 1234
    config.data.update(corpus="atomic", domain="items")
    config.split.kind = "by_user"
    config.prompts.update(max_tokens=1065, max_history=10, cut_to_fit=True, ta_example=4)
    config.prompts.update(show_candidates=True, show_ranks=True)
    config.prompts.update(pattern_first=True, end_of_text=True)
    config.lm.update(weights="google/flan-t5-xl", verbalizer="first")
    config.lm.t5.update(dtype="bfloat16", param_dtype="bfloat16", remat="full", scan_layers=True)
    config.distill.update(length=100, top_h=10, num_candidates=20, positions=1, batch_size=20)
    config.distill.update(rps_label="top1", weighting="gradient_norm")
    config.distill.tasks.ta.share = config.distill.tasks.rps.share = 0.5
    config.distill.optimizer.update(learning_rate=5e-3, weight_decay=1e-5, warmup_steps=400)
    config.distill.loop.update(steps=800, evaluate_every=100, checkpoint_every=100)
    config.tune.update(positions=1, batch_size=20, loss_over="candidates", num_candidates=20)
    config.tune.adalora.update(init_rank=320, target_rank=8, alpha=32.0, dropout=0.05)
    config.tune.optimizer.update(learning_rate=1e-4, weight_decay=1e-6, warmup_steps=800)
    config.tune.loop.update(steps=1400, evaluate_every=100, checkpoint_every=100)
    for stage in (config.distill, config.tune):
        stage.optimizer.update(name="lion", clip=2.0, schedule="linear", final_fraction=0.0)
        stage.optimizer.update(b1=0.9, b2=0.99)  # Lion's own; the defaults here are Adam's
    config.evaluate.batch_size = 20
    config.teacher.sasrec.update(width=100, layers=1, heads=1, dropout=0.5)
    config.teacher.caser.update(width=100, horizontal=16, heights=(2, 3, 4), dropout=0.4)
    config.teacher.gru4rec.update(width=64, hidden=64, layers=3, dropout=0.3)
    config.teacher.optimizer.update(name="adam", learning_rate=1e-3, schedule="constant")
    config.teacher.update(batch_size=16, steps_per_call=25)
    config.teacher.loop.update(steps=3000, evaluate_every=100, checkpoint_every=500, patience=6)
    for word in argument.split(",") if argument else ():
        ablated(config, word, ARGUMENTS)
    return config
