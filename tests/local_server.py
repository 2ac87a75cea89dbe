"""A server of a test's own, on this machine."""

import threading
from contextlib import contextmanager


@contextmanager
def answering(server):
    """The server, which answers in a thread until the block ends."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
