"""The one exception that a user is meant to read.

Raise it at the boundary (files, flags, titles typed in) with three things: where (file
and line, or key), what was found, and the remedy. The command line prints it as one
line and exits with status 2; every other exception is a defect of ours and keeps its
traceback.
"""


class UserError(Exception):
    """Bad input of the user: the message names the place, the value and the remedy."""

    status = 2
    """Of the process that ends by it."""


class OthersNotFound(UserError):
    """The other processes of the run did not come: a slow node may be the cause, and another start the remedy."""

    status = 69


class Preempted(BaseException):
    """The process was told to end, as schedulers do before they take a machine away; the same command goes on later.

    No `Exception`: like a keyboard interrupt, nothing may catch it on the way.
    """
