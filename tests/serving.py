"""A real HTTP server on this machine, for victims that are endpoints."""

from __future__ import annotations

import contextlib
import http.server
import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

Answer = tuple[int, bytes]


@dataclass
class Served:
    """Where the server listens and what it was asked: headers and body of each request."""

    url: str = ""
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def images(self, number: int) -> np.ndarray:
        """The array of a request, read as any server would."""
        return np.load(io.BytesIO(self.bodies[number]), allow_pickle=False)


def npy(array: object) -> bytes:
    """An array as ``.npy``; Python objects are pickled, as ``numpy.save`` does unless told otherwise."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), allow_pickle=True)
    return buffer.getvalue()


@contextlib.contextmanager
def serving(answer: Callable[[np.ndarray], Answer], *, path: str = "/predict") -> Iterator[Served]:
    """Answer every POST to ``path`` with what ``answer`` makes of the images; any other path is 404."""
    served = Served()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            served.headers.append(dict(self.headers))
            served.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = answer(served.images(-1)) if self.path == path else (404, b"<h1>nothing here</h1>")
            with contextlib.suppress(OSError):  # the client may have gone
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}{path}"
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
