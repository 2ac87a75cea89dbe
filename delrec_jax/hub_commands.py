"""The commands on a shared folder, here or on the hub, without a workdir: `push --folder`, `recommend` and `rank --from`."""

from pathlib import Path

from absl import flags

from delrec_jax.errors import UserError


def reads_shared(command: str, values: flags.FlagValues) -> bool:
    """Returns whether a command is about a shared folder, and not about a workdir.

    Only commands that can be have the flags that say so.

    Raises:
      UserError: both are given, or flags that do not go together.
    """
    place, folder = values["from"].value, values.folder
    if not (place or folder):
        if values.revision:
            raise UserError(f"--revision={values.revision}: give --from=USER/NAME too")
        if command in ("recommend", "rank") and (values.titles or values.base):
            raise UserError(
                "--titles and --base are for models that were shared: give --from=USER/NAME too"
            )
        return False
    given = f"--from={place}" if place else f"--folder={folder}"
    if values.workdir or values.config or values.cache:
        raise UserError(f"{given}: give no --workdir, --cache and --config with it")
    if folder and (values.titles or values.license or values.base):
        raise UserError(f"{given}: --titles, --license and --base are for `delrec export`")
    return True


def run_shared(command: str, values: flags.FlagValues) -> None:
    """Runs one command on a shared folder.

    Raises:
      UserError: what the command itself says.
    """
    if command == "push":
        from delrec_jax.hub.push import push

        push(Path(values.folder), values.repo, private=values.private)
        return
    from delrec_jax import distributed
    from delrec_jax.hub.catalogue import read_titles
    from delrec_jax.hub.fetched import open_shared
    from delrec_jax.workdir_commands import ask

    if command == "rank":
        distributed.join(distributed.DistributedConfig())
    recommender = open_shared(
        str(values["from"].value),
        revision=values.revision or None,
        base=values.base,
        titles=read_titles(Path(values.titles)) if values.titles else None,
    )
    ask(command, recommender, values)
