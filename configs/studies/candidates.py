"""How many candidates should a text ask about, and should it list them?

Question: DELRec by m, the number of candidates of a text in both stages, listed in the text or not.
Arms: m = 15, 20, 25, each listed and not; both stages learn among the m candidates, as the paper's do, and all are ranked among
the same candidates of the base.
Command: delrec study --config=configs/studies/candidates.py --workdir=runs/candidates      (or NAME.py:BASE)
Time: 6 arms x 3 seeds; meant for one 80 GB GPU with Flan-T5 large. Not run in full yet; the storefront's small T5 was not
pre-trained on lists.
"""

from ml_collections import ConfigDict

from delrec_jax.studies.study import Study, along, grid

BASE = "../storefront.py"

_TOKENS = 16  # of a listed title, at most


def get_study(base: ConfigDict) -> Study:
    def both_stages(number: int) -> dict[str, object]:
        return {
            "distill.loss_over": "candidates",
            "tune.loss_over": "candidates",
            "tune.num_candidates": number,
            "tune.anchor": 0.0,
            "tune.controls": (),
            "distill.controls": (),
            "prompts.max_tokens": base.prompts.max_tokens + _TOKENS * number,
        }

    return Study(
        question="How many candidates should a text ask about, and should it list them?",
        arms=grid(
            along("distill.num_candidates", (15, 20, 25), axis="m", also=both_stages),
            along("prompts.show_candidates", (False, True), axis="listed"),
        ),
        reference="m=20,listed=False",
        systems=("delrec", "lm_distilled_prompt"),
        context=("teacher",),
        metric="HR@1",
        protocol=f"sampled-{base.candidates.num}",
    )
