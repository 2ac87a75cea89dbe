"""A file that a corpus can be downloaded from; apart from `download`, whose libraries most commands do not need."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Resource:
    """A published file.

    Attributes:
      url: https, or hf://datasets/OWNER/NAME@REVISION/PATH for a dataset of the Hugging Face hub.
      file_name: Its name in the cache and in the user's folder of raw files.
      sha256: Its SHA-256 in hexadecimal digits, "" if none is registered.
    """

    url: str
    file_name: str
    sha256: str = ""
