"""`delrec app --workdir=DIR [--host=127.0.0.1] [--port=7860]`: a page in the browser on which a finished run can be tried.

Somebody picks titles and sees the lists of teacher, language model, DELRec and hybrids side by side, with scores and times,
what changes when an item is left out or the order is reversed, and the text that the language model reads. It needs the extra
`app` (Gradio).

The page is for this machine alone unless `--host` says otherwise; there is no password. It asks nothing of other machines, and
the browser is told to do the same: no fonts, scripts or statistics from elsewhere, and no public link.
"""

import contextlib
import socket
from typing import TYPE_CHECKING, Any

from delrec_jax.addresses import is_loopback
from delrec_jax.app import page
from delrec_jax.app.answers import Answers
from delrec_jax.errors import UserError, one_line
from delrec_jax.serving.recommender import Recommender
from delrec_jax.teachers.registry import display_name
from delrec_jax.workdir.recommenders import first_cell
from delrec_jax.workdir.workspace import Workspace

if TYPE_CHECKING:
    from fastapi import FastAPI

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""What a browser may load: nothing from elsewhere. Gradio's own scripts and styles are partly inline."""

_HEADERS = {
    b"content-security-policy": _POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
}

MOST_BYTES = 1 << 20
"""The longest request that is read; a question has a few kilobytes, and nothing is ever uploaded."""


def serve(ws: Workspace, host: str, port: int) -> None:
    """Serves the page until it is interrupted.

    Args:
      ws: a finished run.
      host: name or address of this machine to listen at; others reach `0.0.0.0` and the like.
      port: 0 = a free one.

    Raises:
      UserError: Gradio is not installed, the address cannot be used, or the run is not finished.
    """
    try:
        import gradio  # noqa: F401
        import uvicorn
    except ModuleNotFoundError as error:
        raise UserError(
            f'app needs {error.name}, which is not installed: pip install ".[app]"'
        ) from error
    answers = Answers(Recommender(ws), display_name(first_cell(ws.experiment).name))
    with bound(host, port) as listening:
        corpus = ws.experiment.data.corpus.rpartition("/")[2]  # of your own: FILE.py:NAME
        app = site(answers, corpus, host)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        print(f"app: http://{_address(listening)} (Ctrl-C ends it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn has closed everything by then
            server.run(sockets=[listening])


def bound(host: str, port: int) -> socket.socket:
    """Returns a socket that listens at an address.

    Raises:
      UserError: there is no such address here, or the port is taken.
    """
    try:
        family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise UserError(
            f"--host={host} --port={port}: cannot be listened at ({reason}); give a name or address of this machine, another "
            "--port, or --port=0 for a free one"
        ) from error


def site(answers: Answers, name: str, host: str) -> "FastAPI":
    """Returns the page as a web application, without Gradio's extras.

    Args:
      answers: what the page asks.
      name: of the corpus.
      host: where it will listen: a browser on this machine is answered by this machine's own names only, so that no other site
        can read the page through it.
    """
    import gradio
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = FastAPI(openapi_url=None)
    app.add_middleware(Bounded)
    app.add_middleware(_Policy)
    if is_loopback(host):
        app.add_middleware(
            TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "[::1]", "localhost", host]
        )
    mounted: FastAPI = gradio.mount_gradio_app(
        app,
        page.build(answers, name),
        "/",
        theme=page.theme(),
        css=page.styles(),
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=1,  # nothing is ever uploaded
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
    )
    return mounted


class Bounded:
    """Reads a request as a whole, and refuses one of more than `MOST_BYTES` before the page sees any of it."""

    def __init__(self, app: Any):
        """Takes what answers the others, by ASGI."""
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        stated = dict(scope["headers"]).get(b"content-length", b"").lstrip(b"0")
        too_long = len(stated) > 12 or (stated.isdigit() and int(stated) > MOST_BYTES)
        body, more = bytearray(), not too_long
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            too_long, more = len(body) > MOST_BYTES, message.get("more_body", False)
            more = more and not too_long
        if too_long:
            headers = [(b"content-length", b"0"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 413, "headers": headers})
            await send({"type": "http.response.body"})
            return
        read = [{"type": "http.request", "body": bytes(body)}]

        async def received() -> Any:
            return read.pop() if read else await receive()  # then: that the browser has gone

        await self._app(scope, received, send)


class _Policy:
    """Adds the rules for browsers to every response."""

    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_HEADERS.items()]}
            await send(message)

        await self._app(scope, receive, sent)


def _address(listening: socket.socket) -> str:
    host, port, *_ = listening.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
