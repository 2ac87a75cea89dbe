"""The one exception that a user is meant to read.

Raise it at the boundary (files, flags, titles typed in) with three things: where (file
and line, or key), what was found, and the remedy. The command line prints it as one
line and exits with status 2; every other exception is a defect of ours and keeps its
traceback.
"""


class UserError(Exception):
    """Bad input of the user: the message names the place, the value and the remedy."""
