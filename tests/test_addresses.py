"""Data are fetched over https, or over http from this machine alone; no redirect leads elsewhere."""

import pytest
from gcs_fake import URL, bucket
from hub_fake import hub

from delrec_jax.addresses import check_address, is_loopback
from delrec_jax.errors import UserError
from delrec_jax.hub.fetched import fetch
from delrec_jax.language.hub import resolve
from delrec_jax.workdir.bucket import Bucket

__all__ = ["bucket", "hub"]

REFUSED = [
    "http://files.example/a.zip",
    "http://192.168.0.1/a.zip",
    "http://127.0.0.1.files.example/a.zip",
    "http://localhost.files.example/a.zip",
    "http://127.0.0.1@files.example/a.zip",
    "http://2130706433/a.zip",  # another spelling of 127.0.0.1, which not every library reads so
    "http:///a.zip",
    "https:///a.zip",
    "ftp://files.example/a.zip",
    "file:///etc/passwd",
    "data:text/plain,a",
    "//files.example/a.zip",
    "/etc/passwd",
    "http://[::1/a.zip",
    "",
]


@pytest.mark.parametrize("url", REFUSED)
def test_other_addresses_are_refused_in_one_line(url):
    with pytest.raises(UserError) as caught:
        check_address(url)
    message = str(caught.value)
    assert message.startswith(f"{url}: this address is neither https nor http to this machine")
    assert "use an https address" in message and "\n" not in message


@pytest.mark.parametrize(
    "url",
    [
        "https://files.example/a.zip",
        "HTTPS://files.example:8443/a.zip",
        "http://localhost:80/a.zip",
        "http://127.0.0.1/a.zip",
        "http://127.9.9.9:1234/a.zip",
        "http://[::1]:1234/a.zip",
    ],
)
def test_https_and_this_machine_are_asked(url):
    check_address(url)
    check_address(url, before="http://localhost/b.zip")


def test_a_redirect_from_https_leads_to_https_alone():
    check_address("https://other.example/a", before="https://files.example/a")
    for url in ("http://127.0.0.1/a", "http://files.example/a", "ftp://files.example/a"):
        with pytest.raises(UserError, match=r"^https://files\.example/a: leads to '(ht|f)tp://"):
            check_address(url, before="https://files.example/a")


def test_names_of_this_machine():
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]")))
    assert not any(map(is_loopback, ("", "0.0.0.0", "::", "files.example", "10.0.0.1")))


OPENERS = pytest.mark.parametrize("open_one", [resolve, fetch], ids=["weights", "a shared model"])


@OPENERS
def test_the_hub_is_not_followed_elsewhere(hub, open_one):
    hub.make("ann/shop", {"delrec.json": b"{}", "config.json": b"{}"})
    hub.refuse("GET .*/resolve/.*", 302, Location="http://files.example/model")
    with pytest.raises(UserError, match=r"the hub: leads to 'http://files\.example/model'"):
        open_one("ann/shop")
    assert hub.log


@OPENERS
def test_a_hub_over_plain_http_is_not_asked(hub, monkeypatch, open_one):
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.ENDPOINT", "http://hub.example")
    template = "http://hub.example/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
    with pytest.raises(UserError, match=r"the hub: 'http://hub\.example/.* is neither https nor"):
        open_one("ann/shop")


def test_a_bucket_elsewhere_than_https_is_not_asked(bucket, monkeypatch):
    Bucket(URL).list()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://storage.example")
    with pytest.raises(UserError, match=r"^STORAGE_EMULATOR_HOST: 'http://storage\.example' is ne"):
        Bucket(URL)
