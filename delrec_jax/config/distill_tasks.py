"""The tasks of stage 1, `distill.tasks`, and which of its controls they allow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from delrec_jax.config.tree import at_least
from delrec_jax.errors import UserError


@dataclass(frozen=True)
class TaskShare:
    """The part that one task has in stage 1; shares and weights are relative to those of the other tasks.

    Attributes:
      share: share of the texts; 0 = none.
      weight: weight in the loss, with `distill.weighting=fixed`.
      code: `FILE.py:OBJECT` or `module:OBJECT` of a task that the package does not have (`delrec.prompt_tasks.PromptTask`).
    """

    share: float = 0.0
    weight: float = 0.0
    code: str = ""


def paper_tasks() -> dict[str, TaskShare]:
    """The paper's two tasks, with its shares and weights."""
    return {"ta": TaskShare(share=0.25, weight=0.2), "rps": TaskShare(share=0.75, weight=0.8)}


def check_tasks(tasks: Mapping[str, TaskShare], weighting: str, *, prompt: str) -> None:
    """Checks shares and weights.

    Args:
      tasks: by name.
      weighting: `distill.weighting`.
      prompt: `distill.prompt` if its slots read what the teacher expects after a history; "" otherwise.

    Raises:
      UserError: names the key.
    """
    asked = [name for name, task in tasks.items() if task.share and name != "rps"]
    if prompt and asked:
        raise UserError(
            f"distill.prompt={prompt} reads the teacher's expectation after a history, which only rps asks about: set "
            f"distill.tasks.{asked[0]}.share to 0"
        )
    for name in ("share", "weight"):
        for task, given in tasks.items():
            at_least(f"distill.tasks.{task}.{name}", getattr(given, name), 0)
    if "rps" not in tasks:
        raise UserError(
            "distill.tasks has no 'rps', whose texts select the prompt: keep it, with share=0.0 if it should not train"
        )
    for name in ("share", "weight"):
        if not any(getattr(task, name) for task in tasks.values()):
            raise UserError(f"distill.tasks: every {name} is 0; give one task a positive one")
    if weighting == "fixed" and not any(task.share and task.weight for task in tasks.values()):
        raise UserError(
            "distill.tasks: no task has both a share and a weight, so nothing would train"
        )


def check_controls(controls: Sequence[str], tasks: Mapping[str, TaskShare], weighting: str) -> None:
    """Refuses a control that would not train, or not in another way than the distilled prompt: it is not what it is called.

    Raises:
      UserError: names the control.
    """
    if "true" in controls and weighting == "fixed" and not tasks["rps"].weight:
        raise UserError(
            "distill.controls has 'true', whose texts have the weight of rps, which is 0, so that nothing would train: give "
            "distill.tasks.rps.weight a positive value, or leave the control out"
        )
    asked = {name for name, task in tasks.items() if task.share}
    if "shuffled" in controls and asked == {"ta"}:
        raise UserError(
            "distill.controls has 'shuffled', but ta alone has a share, which does not read the teacher's lists: it would be "
            "the distilled prompt once more; leave it out of distill.controls and tune.controls"
        )
