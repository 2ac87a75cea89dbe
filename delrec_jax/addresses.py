"""Where data may be fetched from: over https, and over http from this machine alone.

Over plain http, whoever is on the way can put other data in the place of those that were asked for. Redirects are held to the
same rule, so that a page over https cannot lead there either.
"""

import ipaddress
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from delrec_jax.errors import UserError


def check_address(url: str, *, before: str = "", place: str = "") -> None:
    """Checks an address before anything is asked of it.

    Args:
      url: the address.
      before: the address that led to it, if it was a redirect: one over https must lead to https.
      place: what names the address, for messages; "" = the address itself, or the one before.

    Raises:
      UserError: it is neither https nor http to this machine, or it leads from https to http.
    """
    # A damaged address (of the port, or with open brackets) raises ValueError.
    try:
        parts = urlsplit(url)
        scheme, host = parts.scheme, parts.hostname or ""
    except ValueError:
        scheme, host = "", ""
    secure = scheme == "https" and host
    local = scheme == "http" and is_loopback(host) and not before.startswith("https:")
    if secure or local:
        return
    what = f"leads to {url!r}, which" if before else repr(url) if place else "this address"
    raise UserError(
        f"{place or before or url}: {what} is neither https nor http to this machine, so anybody on the way could change what "
        "arrives: nothing was fetched; use an https address"
    )


def is_loopback(host: str) -> bool:
    """Returns whether a name or an address is this machine's own, which no other machine reaches."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@cache
def watch_hub() -> None:
    """Has `huggingface_hub` check every address that it asks in this process, redirects and HF_ENDPOINT included."""
    # Imported late, because the import is slow. The client without this check is not exported.
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def client() -> Any:
        made: Any = default_client_factory()
        hooks = made.event_hooks
        made.event_hooks = {**hooks, "request": [_check_request, *hooks["request"]]}
        return made

    set_client_factory(client)


def _check_request(request: Any) -> None:
    from huggingface_hub import constants

    url, endpoint = str(request.url), constants.ENDPOINT
    check_address(url, before="" if url.startswith(endpoint) else endpoint, place="the hub")
