"""What the hub answers instead of doing what it was asked, in one line with the remedy."""

from collections.abc import Iterator
from contextlib import contextmanager

from delrec_jax.addresses import watch_hub
from delrec_jax.errors import UserError, one_line


@contextmanager
def told(place: str) -> Iterator[None]:
    """Turns the errors of `huggingface_hub` into a `UserError`, and checks the addresses that it asks (`addresses`).

    Args:
      place: what was asked for, which the message begins with: `--repo=ann/shop:`.
    """
    # Imported late, because the import is slow.
    from huggingface_hub import errors

    watch_hub()
    try:
        yield
    except UserError:
        raise
    except (
        errors.HTTPError,  # type: ignore[attr-defined, unused-ignore]  # not exported explicitly
        errors.HFValidationError,
        OSError,
        RuntimeError,  # of an upload, with the cause below it
        ValueError,  # of a malformed answer
    ) as error:
        around = isinstance(error, RuntimeError | errors.LocalEntryNotFoundError)
        cause = error.__cause__ if around and error.__cause__ else error
        raise UserError(
            f"{place} {_fault(cause)} ({type(cause).__name__}: {one_line(cause, most=200)})"
        ) from None


def _fault(error: BaseException) -> str:
    from huggingface_hub import errors, is_offline_mode

    status = getattr(getattr(error, "response", None), "status_code", 0)
    if isinstance(error, errors.HFValidationError):
        return "not a name on the hub: give USER/NAME"
    if isinstance(error, errors.GatedRepoError | errors.DisabledRepoError) or status == 403:
        return "the hub denies this: ask the owner, or use a token with the right to do it"
    if isinstance(error, errors.RevisionNotFoundError):
        return "no such revision of it on the hub: give a branch, a tag or a commit"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return "not a model that `delrec push` put there: a file of it is missing"
    if status == 401 and "credentials" in str(error).lower():
        return "the hub refuses the token: run `hf auth login` with a valid one, or set HF_TOKEN"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such repository on the hub, or it is private and no token that may read it was given: check the name"
    if status == 401:
        return "the hub refuses the token: run `hf auth login` with a valid one, or set HF_TOKEN"
    if status == 412 or status == 409:
        return "somebody else changed it at the same time: try again"
    if status:
        return f"the hub answers with the status {status}: try again later"
    if is_offline_mode():
        return "HF_HUB_OFFLINE is set, and the hub's cache does not hold it: unset it"
    return "the hub cannot be reached, or broke off: check the network, then try again"
