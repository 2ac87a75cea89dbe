"""The demo: DELRec end to end on the embedded storefront.

Command: delrec run --config=configs/storefront.py --workdir=runs/storefront      (or `make demo`)
         delrec run --config=configs/storefront.py:NAME --workdir=runs/NAME         an ablation: a NAME of `ABLATIONS` below
Data: generated, 1000 users, 216 items, 30 % of them new releases; nothing to download.
Hardware and time: 2 CPU cores, 8 minutes alongside other jobs, 2.1 GiB; a minute more per further round of pretraining.
Expect, `full` HR@1 with 95 % intervals over users: teacher 0.40 +- 0.03, distilled prompt 0.49 +- 0.03, shuffled
teacher's prompt 0.00, DELRec 0.49 +- 0.03, oracle 0.56 (docs/results/storefront.md; on a processor without AVX-512 the two were
0.46 and 0.47, docs/results/robustness.md). The ablations are not in that table.
"""

from ml_collections import ConfigDict

from delrec_jax.config import ablated, default_config

ABLATIONS = {
    "listwise": {"distill.rps_label": "listwise"},  # the teacher's list, not only its best item
    "lora": {"tune.adalora.target_rank": 12},  # every adapter keeps the rank that it starts with
    "no_anchor": {"tune.anchor": 0.0},  # stage 2 may leave the model that it starts from
    "no_ta": {"distill.tasks.ta.share": 0.0},  # stage 1 with only Recommendation Pattern Simulating
    # Stage 1 with only Temporal Analysis, which reads no lists: a shuffled teacher's would change nothing.
    "no_rps": {
        "distill.tasks.rps.share": 0.0,
        "distill.controls": ("true",),
        "tune.controls": ("none", "random", "true"),
    },
    "few_labels": {"split.label_users": 100},  # only these users' interactions are for training
    # LLaRA: the teacher's vector after each title; projector and LoRA train together, on labels alone, from words to slots.
    "llara": {
        "distill.prompt": "titles",
        "distill.loop.steps": 0,
        "tune.train_prompt": True,
        "tune.curriculum": True,
        "tune.anchor": 0.0,
        "tune.adalora.target_rank": 12,
        "tune.controls": ("none",),
    },
    # LlamaRec: LoRA on lists of candidates, scored by their letters; its row is lm_tuned_no_prompt under rerank and sampled.
    "llamarec": {
        "lm.verbalizer": "index",
        "prompts.max_tokens": 384,  # 20 titles more
        "distill.num_candidates": 20,
        "distill.loop.steps": 0,
        "tune.loss_over": "candidates",
        "tune.anchor": 0.0,
        "tune.adalora.target_rank": 12,
        "tune.controls": ("none",),
    },
}


def get_config(ablation: str | None = None) -> ConfigDict:
    config = default_config()
    config.data.update(corpus="storefront", domain="items")
    config.data.storefront.update(series=4, volumes=9, users=1000)
    config.prompts.update(max_tokens=256, max_history=4)
    config.lm.t5.update(
        d_model=64, d_kv=16, num_heads=4, d_ff=128, num_layers=2, num_decoder_layers=1
    )
    text = config.pretrain.text
    text.update(history=4, short_first=500, heldout_items=0.05, batch_tokens=2048)
    text.update(short=0.25, several=0.05, full=0.6, attributes=0.1)
    config.pretrain.loop.steps = 1800  # of one round
    config.pretrain.rounds = (
        3  # one is enough on most machines; when a small T5 makes its jump is not certain
    )
    config.pretrain.gate.update(attributes=0.9, next_in_series=0.7)
    config.teacher.sasrec.max_length = 16
    config.teacher.batch_size = 24
    config.teacher.loop.update(steps=400, evaluate_every=50, patience=3)
    config.distill.update(batch_size=32, num_candidates=100, rps_label="top1")
    config.distill.tasks.ta.update(share=0.125, weight=0.1)
    config.distill.tasks.rps.update(share=0.875, weight=0.9)
    config.distill.loop.update(steps=300, evaluate_every=50, checkpoint_every=100)
    config.tune.update(batch_size=32, select_by="HR@1", anchor=1.0)
    config.tune.optimizer.learning_rate = 2e-3
    config.tune.loop.update(steps=160, evaluate_every=40, checkpoint_every=80)
    return ablated(config, ablation, ABLATIONS)
