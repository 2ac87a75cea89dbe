"""DELRec beside its nearest rivals, on the same language model, teacher and candidates.

Question: among one target and random unseen items, does DELRec find the target more often than LLaRA's hybrid prompt,
LlamaRec's lists and LLMSeqSim's title vectors do?
Arms: `full` (DELRec; `lm_embeddings` beside it is LLMSeqSim), `llara` (the teacher's vector after each title; projector and
LoRA train together on labels), `llara_long` (the same with the steps of both of DELRec's stages) and `llamarec` (LoRA on lists
of candidates scored by their letters, without a prompt).
Command: delrec study --config=configs/studies/rivals.py --workdir=runs/rivals      (or NAME.py:BASE)
Time: 4 arms x 3 seeds that share corpus and teachers: 53 minutes on the storefront, on two cores beside other work
(docs/results/study_rivals.md); meant for one 80 GB GPU with Flan-T5 large.

The rivals are their ideas on this base, not their authors' code: LLaRA and LlamaRec tune Llama 2, with prompts of their own.
"""

from ml_collections import ConfigDict

from delrec_jax.studies.study import Arm, Study

BASE = "../storefront.py"

ALONE = {"tune.controls": ("none",), "distill.controls": ()}
LORA = {"tune.anchor": 0.0, "tune.adalora.target_rank": 12, **ALONE}
LLARA = {
    "distill.prompt": "titles",
    "distill.loop.steps": 0,
    "tune.train_prompt": True,
    "tune.curriculum": True,
    **LORA,
}
LLAMAREC = {
    "lm.verbalizer": "index",
    "distill.num_candidates": 20,
    "distill.loop.steps": 0,
    "tune.loss_over": "candidates",
    **LORA,
}


def get_study(base: ConfigDict) -> Study:
    room = {"prompts.max_tokens": base.prompts.max_tokens + 128}  # for the list
    both = base.distill.loop.steps + base.tune.loop.steps
    return Study(
        question="Does DELRec beat LLaRA's prompt, LlamaRec's lists and LLMSeqSim's title vectors?",
        arms=(
            Arm("full", ALONE),
            Arm("llara", LLARA),
            Arm("llara_long", {**LLARA, "tune.loop.steps": both}),
            Arm("llamarec", {**LLAMAREC, **room}, systems=("lm_tuned_no_prompt",)),
        ),
        reference="full",
        systems=("delrec", "lm_tuned_no_prompt"),
        context=("teacher", "lm_embeddings", "ease", "oracle"),
        metric="HR@1",
        protocol=f"sampled-{base.candidates.num}",
    )
