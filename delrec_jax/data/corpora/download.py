"""Files of the public corpora: downloaded once, then recognized by their SHA-256.

pooch fills the cache, and huggingface_hub fetches what is on the hub. Added here: a large download continues where the
connection broke, it has bounds in size and time, every address is checked (`addresses`), and a cached file that has changed is
reported instead of replaced. Next to NAME in the cache are NAME.sha256 (as sha256sum writes it; only if no checksum is
registered) and NAME.lock, and during a download NAME.part with the bytes so far and NAME.part.version with the version they
belong to, or NAME.hub.
"""

import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urljoin

import pooch
import requests
from filelock import FileLock
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from delrec_jax.addresses import check_address, watch_hub
from delrec_jax.data.corpora.resource import Resource
from delrec_jax.errors import UserError, one_line
from delrec_jax.files import file_hash

_ATTEMPTS = 4
_PAUSE = 1.0  # seconds before the second attempt, doubled before each further one
_SILENCE = 30.0  # seconds without a byte after which a connection counts as broken
_SLOWEST = 1 << 10  # bytes a second; a connection that is slower on average counts as broken
_LONGEST = 24 * 3600.0  # seconds for one file in one call
_LARGEST = 64 << 30  # bytes; several times the largest file of a corpus
_REDIRECTS = 10
_CHUNK = 1 << 16
_HUB = re.compile(r"hf://datasets/([^/]+/[^/@]+)@([^/]+)/(.+)")
_BY_HAND = "download it by hand and set data.manual_dir to its folder"


def fetch(resource: Resource, directory: Path, *, manual_dir: Path | None = None) -> Path:
    """Returns the path of a resource's file and downloads it first if necessary.

    Args:
      resource: What to fetch.
      directory: The cache.
      manual_dir: A folder of the user's that must have the file; the network is not used then.

    Raises:
      UserError: if the user's folder lacks the file, a checksum differs, the server refuses the file or breaks off each
        time (the next call continues what has been downloaded), or the cache cannot be written.
    """
    path = (manual_dir or directory) / resource.file_name
    if manual_dir is not None and not path.exists() and not resource.sha256:
        path = _unpacked(path)
    try:
        if manual_dir is not None:
            _check_given(resource, path)
        elif not _is_cached(resource, path):
            directory.mkdir(parents=True, exist_ok=True)
            say = "%s is not in the cache; if another process is downloading it, this one waits"
            pooch.get_logger().info(say, path.name)
            with FileLock(_beside(path, ".lock")):
                # Another process may have downloaded it in the meantime.
                if not _is_cached(resource, path):
                    _download(resource, path)
    except OSError as error:
        raise UserError(
            f"{error.filename or path}: {error.strerror or error}; make room, correct the permissions or name "
            "another folder; what has been downloaded is kept"
        ) from error
    return path


def _unpacked(path: Path) -> Path:
    """Returns the same file without `.gz` if that is what the user has, as readers tell one from the other; else the path."""
    plain = path.with_name(path.name.removesuffix(".gz"))
    return plain if plain.is_file() else path


def _check_given(resource: Resource, path: Path) -> None:
    if not path.is_file():
        raise UserError(
            f"{path.parent}: no file {path.name!r}; download it from {resource.url} into this folder, or leave "
            "data.manual_dir empty to have it downloaded"
        )
    if resource.sha256 and (digest := file_hash(path)) != resource.sha256.lower():
        raise UserError(
            f"{path}: SHA-256 is {digest}, expected {resource.sha256.lower()}; download it again from {resource.url}"
        )


def _is_cached(resource: Resource, path: Path) -> bool:
    """Whether the file is there. A change to it may be the user's own work, so it is an error."""
    if not path.is_file():
        return False
    noted = _text(_beside(path, ".sha256"))[:64] or "unknown: no note of its download"
    if (digest := file_hash(path)) != (expected := resource.sha256.lower() or noted):
        raise UserError(
            f"{path}: changed since it was downloaded (SHA-256 is {digest}, expected {expected}); delete it to have "
            "it downloaded again, or set data.manual_dir to use a file of your own"
        )
    return True


def _download(resource: Resource, path: Path) -> None:
    """Lets pooch check the download against the registered checksum and give it its name."""
    part, hub_folder = _beside(path, ".part"), _beside(path, ".hub")

    def downloader(url: str, output_file: str, _: pooch.Pooch) -> None:
        on_hub = _HUB.fullmatch(url)
        arrived = _from_hub(on_hub, hub_folder) if on_hub else _from_server(url, part)
        if not resource.sha256:
            # Written before the file gets its name: a file without a note is not accepted.
            _beside(path, ".sha256").write_text(f"{file_hash(arrived)}  {path.name}\n")
        os.replace(arrived, output_file)
        _beside(part, ".version").unlink(missing_ok=True)

    registry = {path.name: resource.sha256 or None}
    cache = pooch.create(path.parent, "", registry=registry, urls={path.name: resource.url})
    try:
        cache.fetch(path.name, downloader=downloader)
    except ValueError as error:
        raise UserError(
            f"{resource.url}: {error} Run again; if it differs again, the publisher changed it: get the earlier file and "
            "set data.manual_dir to its folder"
        ) from error
    finally:
        shutil.rmtree(hub_folder, ignore_errors=True)


def _from_hub(file: re.Match[str], folder: Path) -> Path:
    """Leaves attempts and environment variables (HF_ENDPOINT, HF_HUB_OFFLINE) to huggingface_hub."""
    from huggingface_hub import errors, hf_hub_download  # slow, and only one corpus needs it

    watch_hub()
    repo, revision, name = file.groups()
    try:
        arrived = hf_hub_download(
            repo, name, repo_type="dataset", revision=revision, local_dir=folder
        )
    except (errors.HTTPError, OSError, ValueError) as error:  # type: ignore[attr-defined]  # meant for import
        if isinstance(error, OSError) and error.errno:
            raise  # the disk's, not the hub's
        reason = f"{type(error).__name__}: {one_line(error, most=200)}"
        raise UserError(
            f"{file[0]}: the hub did not give it ({reason}); check the network and run again, or {_BY_HAND}"
        ) from error
    return Path(arrived)


def _from_server(url: str, part: Path) -> Path:
    """Completes `part`, in several attempts if necessary."""
    ends = time.monotonic() + _LONGEST
    for attempt in range(_ATTEMPTS):
        time.sleep(_PAUSE * 2 ** (attempt - 1) if attempt else 0)
        try:
            _transfer(url, part, _beside(part, ".version"), ends)
            return part
        except (requests.RequestException, HTTPError) as error:
            reason = one_line(error, most=200)
            status = getattr(getattr(error, "response", None), "status_code", 500)
            if 400 <= status < 500 and status not in (408, 425, 429):
                raise UserError(
                    f"{url}: the server refuses it ({reason}); find out where the file is now, then {_BY_HAND}"
                ) from error
    raise UserError(
        f"{url}: broke off {_ATTEMPTS} times, in the end by: {reason}; check the network and run again to continue "
        f"with what has been downloaded, or {_BY_HAND}"
    )


def _transfer(url: str, part: Path, version_file: Path, ends: float) -> None:
    """Makes one attempt; it continues `part` only with the same version of the file, else it starts again.

    `ends` is when it is given up, on the monotonic clock.
    """
    version = _text(version_file)
    start = part.stat().st_size if version and part.is_file() else 0
    # Uncompressed, so that bytes can be counted. Some servers turn away the names of HTTP libraries.
    headers = {"Accept-Encoding": "identity", "User-Agent": "delrec_jax"}
    if start:
        # With If-Range, a server sends a changed file from its beginning instead of a piece of it.
        headers |= {"Range": f"bytes={start}-", "If-Range": version}
    with _asked(url, headers) as response:
        status, sent = response.status_code, response.headers
        tag, place = sent.get("ETag", ""), sent.get("Content-Range", "")
        # A weak ETag does not promise the same bytes.
        current = tag if tag.startswith('"') else sent.get("Last-Modified", "")
        if status == 416 and place == f"bytes */{start}":
            return  # complete: an earlier run ended before it could rename the part
        fits = place.startswith(f"bytes {start}-") and current in ("", version)
        if start and status in (206, 416) and not fits:
            version_file.unlink()
            raise requests.ConnectionError("the server does not continue what has been downloaded")
        response.raise_for_status()
        if not start or status != 206:
            start = 0
            part.write_bytes(b"")  # first: never old bytes under a new version
            version_file.write_text(current)
        length = place.rpartition("/")[2] if start else sent.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        _check_size(url, total or 0)
        # On a terminal only.
        with (
            part.open("ab") as file,
            tqdm(
                total=total, initial=start, desc=part.stem, unit="B", unit_scale=True, disable=None
            ) as bar,
        ):
            _copy(url, response.raw, file, bar, ends)
    if total is not None and part.stat().st_size != total:
        raise requests.ConnectionError(f"only {part.stat().st_size:,} of {total:,} bytes came")


def _asked(url: str, headers: Mapping[str, str]) -> requests.Response:
    """Asks for a file; each address on the way is checked before it is asked."""
    check_address(url)
    for _ in range(_REDIRECTS):
        response = requests.get(
            url, headers=headers, stream=True, timeout=_SILENCE, allow_redirects=False
        )
        if not response.is_redirect:
            return response
        response.close()
        target = urljoin(url, response.headers["Location"])
        check_address(target, before=url)
        url = target
    raise requests.TooManyRedirects(f"redirected {_REDIRECTS} times")


def _copy(url: str, body: Any, file: BinaryIO, bar: Any, ends: float) -> None:
    """Appends what arrives to `file`, unless it is too much, or takes too long."""
    began, count = time.monotonic(), 0
    # Not `read`, which would wait for a whole chunk: from a server that sends a byte every few seconds, for days.
    while piece := body.read1(_CHUNK):
        file.write(piece)
        bar.update(len(piece))
        count += len(piece)
        _check_size(url, file.tell())
        now = time.monotonic()
        if now > ends:
            raise UserError(
                f"{url}: not complete after {_LONGEST / 3600:.0f} hours; run again to continue with what has been "
                f"downloaded, or {_BY_HAND}"
            )
        if now - began > _SILENCE and count < _SLOWEST * (now - began):
            raise requests.ConnectionError(f"less than {_SLOWEST:,} bytes a second came")


def _check_size(url: str, size: int) -> None:
    if size > _LARGEST:
        raise UserError(
            f"{url}: more than {_LARGEST:,} bytes, which no file of a corpus has; find out what the server gives, or {_BY_HAND}"
        )


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""
