"""A folder of a Google Cloud Storage bucket: objects that are read, written and deleted only as this run knows them.

Every write and delete names the generation that it replaces: if anybody else has changed the object since, it fails. Uploads
and downloads are checked by CRC32C and, where the service is busy or a connection breaks, repeated by the library.
"""

import base64
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from delrec_jax.addresses import check_address
from delrec_jax.errors import UserError, one_line

SCHEME = "gs://"
NEW = 0
"""The generation of an object that does not exist."""

_URL = re.compile(r"gs://([a-z0-9][a-z0-9._-]+[a-z0-9])/(.+)")
_REQUEST = re.compile(r"(GET|POST|PUT|PATCH|DELETE) https?://\S+: ")
_PATIENCE = 120.0  # seconds for which the library repeats one failed request
_CHUNK = 1 << 20  # bytes
_EMULATOR = "STORAGE_EMULATOR_HOST"


class Changed(UserError):
    """An object is not the one that this run knows: somebody else has written or deleted it."""


class Unreachable(UserError):
    """The service does not answer, or not as it should; another start may be the remedy."""

    status = 69


@dataclass(frozen=True)
class Stored:
    """What the service says of an object.

    Attributes:
      size: bytes.
      crc32c: checksum of its content, in base64.
      generation: number of this version of the object.
      updated: when it was written, by the service's clock.
    """

    size: int
    crc32c: str
    generation: int
    updated: datetime


def split_url(url: str) -> tuple[str, str]:
    """Returns bucket and path of `gs://BUCKET/PATH`.

    Raises:
      UserError: it is no such URL.
    """
    found = _URL.fullmatch(url.rstrip("/"))
    if not found or not all(part.strip(".") for part in found[2].split("/")):
        raise UserError(
            f"--workdir={url}: give a folder, or a folder in a bucket as gs://BUCKET/PATH; others are not supported"
        )
    return found[1], found[2]


def checksum(content: Path | bytes) -> str:
    """Returns the CRC32C of a file, or of bytes, as `Stored` has it."""
    import google_crc32c

    found = google_crc32c.Checksum()
    with BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return base64.b64encode(found.digest()).decode()


class Bucket:
    """The objects below one path of a bucket; names are relative to it."""

    def __init__(self, url: str, *, patience: float = _PATIENCE):
        """Finds the credentials of this machine; nothing is asked of the service yet.

        Args:
          url: as `split_url` reads it.
          patience: for how many seconds a request is repeated where that may help.

        Raises:
          UserError: the client library is not installed, there are no credentials, or STORAGE_EMULATOR_HOST is an address that
            is neither https nor on this machine.
        """
        self.url = url.rstrip("/")
        name, self._path = split_url(url)
        try:
            from google.cloud.storage import Client
            from google.cloud.storage.retry import DEFAULT_RETRY
        except ModuleNotFoundError as error:
            raise UserError(
                f"--workdir={url}: a bucket needs google-cloud-storage, which is not installed (no {error.name}): pip install "
                '".[gcs]", or give a folder'
            ) from error
        if address := os.environ.get(_EMULATOR):  # the library's own: it asks this address instead
            check_address(address, place=_EMULATOR)
        self._retry = DEFAULT_RETRY.with_timeout(patience)
        with self._told():
            self._client = Client()
            self._bucket = self._client.bucket(name)

    def list(self) -> dict[str, Stored]:
        """Returns all objects below the path.

        Raises:
          UserError: there is no such bucket, it cannot be read, or it cannot be reached.
        """
        fields = "items(name,size,crc32c,generation,updated),nextPageToken"
        with self._told():
            found = self._client.list_blobs(
                self._bucket, prefix=f"{self._path}/", fields=fields, retry=self._retry
            )
            return {blob.name.removeprefix(f"{self._path}/"): _stored(blob) for blob in found}

    def get(self, name: str, path: Path, generation: int) -> None:
        """Downloads one version of an object.

        Raises:
          Changed: the object is no longer that version.
          UserError: it cannot be read, or cannot be reached.
        """
        with self._told(name, missing=Changed):
            blob = self._blob(name, generation)
            blob.download_to_filename(path, checksum="crc32c", retry=self._retry)

    def look(self, name: str) -> Stored | None:
        """Returns what the service says of an object; None if there is none.

        Raises:
          UserError: it cannot be read, or cannot be reached.
        """
        from google.api_core.exceptions import NotFound

        with self._told(name):
            blob = self._blob(name)
            try:
                blob.reload(retry=self._retry)
            except NotFound:
                return None
            return _stored(blob)

    def read(self, name: str) -> tuple[bytes, Stored] | None:
        """Returns the content of a small object, and what the service said of it just before; None if there is none.

        Raises:
          UserError: it cannot be read, or cannot be reached.
        """
        stored = self.look(name)
        if stored is None:
            return None
        with suppress(Changed), self._told(name, missing=Changed):
            content = self._blob(name).download_as_bytes(checksum="crc32c", retry=self._retry)
            return content, stored
        return None

    def put(self, name: str, content: Path | bytes, generation: int) -> Stored:
        """Uploads a file or bytes in place of one version of an object (`NEW`: of none).

        Raises:
          Changed: the object is not that version.
          UserError: it cannot be written, or cannot be reached.
        """
        options: dict[str, Any] = {
            "if_generation_match": generation,
            "checksum": "crc32c",
            "retry": self._retry,
        }
        blob = self._blob(name)
        try:
            with self._told(name):
                if isinstance(content, bytes):
                    blob.upload_from_string(content, **options)
                else:
                    blob.upload_from_filename(content, **options)
            return _stored(blob)
        except Changed:
            # A repeated request may find what the first one, whose answer was lost, has written.
            found = self.look(name)
            if found and found.generation != generation and found.crc32c == checksum(content):
                return found
            raise

    def delete(self, name: str, generation: int) -> None:
        """Deletes one version of an object, or nothing if it is gone.

        Raises:
          Changed: the object is not that version.
          UserError: it cannot be deleted, or cannot be reached.
        """
        from google.api_core.exceptions import NotFound

        with self._told(name):
            try:
                self._blob(name).delete(if_generation_match=generation, retry=self._retry)
            except NotFound:
                return

    def _blob(self, name: str, generation: int | None = None) -> Any:
        return self._bucket.blob(f"{self._path}/{name}", generation=generation)

    @contextmanager
    def _told(self, name: str = "", *, missing: type[UserError] = UserError) -> Iterator[None]:
        """Turns the library's errors into a `UserError` of one line; `missing` is raised where the object is not there."""
        from google.api_core import exceptions as api
        from google.auth import exceptions as auth
        from google.cloud.storage.exceptions import DataCorruption
        from requests import RequestException

        place = f"{self.url}/{name}" if name else self.url
        try:
            yield
        except api.PreconditionFailed as error:
            raise Changed(
                f"{place}: somebody else has changed it; end the other run, then start the same command again"
            ) from error
        except (api.Forbidden, api.Unauthorized) as error:
            raise UserError(
                f"{place}: permission denied ({_cause(error)}); give the account of this machine the role "
                "roles/storage.objectUser for the bucket"
            ) from error
        except api.NotFound as error:
            raise missing(
                f"{place}: not found ({_cause(error)}); check the bucket's name, and that no other run writes there now"
            ) from error
        except (
            *(api.RetryError, api.ServerError, api.TooManyRequests, auth.TransportError),
            *(ConnectionError, TimeoutError, RequestException, DataCorruption),
        ) as error:
            raise Unreachable(
                f"{place}: the bucket cannot be reached, or does not answer as it should ({_cause(error)}); when it does, "
                "start the same command again"
            ) from error
        except auth.GoogleAuthError as error:
            raise UserError(
                f"{place}: no valid credentials ({_cause(error)}); run `gcloud auth application-default login`, or give this "
                "machine a service account"
            ) from error
        except api.GoogleAPIError as error:
            raise UserError(
                f"{place}: the service refuses ({_cause(error)}); check the URL"
            ) from error


def _stored(blob: Any) -> Stored:
    return Stored(int(blob.size), blob.crc32c, int(blob.generation), blob.updated)


def _cause(error: BaseException) -> str:
    """The cause in one short line, without the method and the URL of the request, with which the library's words begin."""
    inner = getattr(error, "cause", None)  # of a RetryError
    text = one_line(inner if isinstance(inner, BaseException) else error)
    return one_line(Exception(_REQUEST.sub("", text)), most=200)
