"""`delrec fit`: chooses the settings of the closed-form baselines by validation."""

import time
from dataclasses import asdict

from delrec_jax.distributed import on_main
from delrec_jax.errors import UserError
from delrec_jax.teachers.registry import closed_form
from delrec_jax.training.writers import say
from delrec_jax.workdir.closed_forms import choose_settings, training_part
from delrec_jax.workdir.json_files import write_json
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.workspace import Workspace


def fit(ws: Workspace, data: Data) -> None:
    """Writes `settings.json`; a recommender that cannot be fitted to this corpus is left out, with the reason."""
    config, train, found = ws.experiment.baselines, training_part(data), {}
    for name in config.names:
        started, form = time.monotonic(), closed_form(name)
        try:
            choice = choose_settings(form, data, config, train)
        except UserError as error:
            found[name] = {"left_out": str(error)}
            say(f"  {form.title} is left out: {error}")
            continue
        found[name] = asdict(choice)
        say(
            f"  {form.title}: validation NDCG@10 {choice.valid_ndcg10:.4f} with {choice.told}; best of "
            f"{choice.tried} in {time.monotonic() - started:.0f} s"
        )
    on_main(lambda: write_json(ws.folder("fit") / "settings.json", found))
