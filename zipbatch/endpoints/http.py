"""A victim behind an HTTP address.

The protocol, one request for each batch of N images:

- ``POST`` to the address with ``Content-Type: application/x-npy``. The body is one array in numpy's own ``.npy`` format
  (``numpy.load`` reads it): RGB images, uint8 [N, H, W, 3].
- The answer is status 200 and, as its body, the class scores [N, classes] (logits or probabilities, the higher the
  likelier; column i is class i of the data): a ``.npy`` array of floats or whole numbers, or JSON, a list of N lists.

Nothing is unpickled, on either side: arrays of objects are refused. A request that gets no answer in time, or one of
status 429 or 5xx, is sent again, three times in all; any other status is final. Redirects and proxies are not followed.
An endpoint is asked from two threads at once (and from each worker), so that it can answer while shards are read.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
import ssl
import threading
import time
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import torch

from zipbatch import arrays
from zipbatch.errors import DataError, UsageError

TIMEOUT_S = 60.0
ATTEMPTS = 3
PAUSE_S = 0.5
"""Before the second attempt; twice as long before each further one."""
MAX_ANSWER_BYTES = 64_000_000
NPY = "application/x-npy"


@dataclass(frozen=True)
class HttpVictim:
    """An endpoint by its address: a ``VictimSource`` and its own ``Classifier``, as there is nothing to load.

    Attributes:
        url: the address.
        timeout_s: for an answer.
        version: what its user calls what answers there now; None where nobody says.
        num_classes: width of its scores; None until it was asked.
    """

    url: str
    timeout_s: float = TIMEOUT_S
    _: KW_ONLY
    version: str | None = None
    num_classes: int | None = None

    @classmethod
    def parse(cls, url: str) -> Self:
        """Check an address.

        Raises:
            UsageError: not ``http(s)://HOST[:PORT]/PATH``, or with a user name in it.
        """
        try:
            parts = urlsplit(url)
            fits = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            fits = False
        if not fits or not url.isascii() or not url.isprintable() or " " in url:
            raise UsageError(f"{url}: not an address of the form http://HOST:PORT/PATH")
        if parts.username is not None:
            raise UsageError("the address of an endpoint must not hold a user name or password: reports repeat it")
        return cls(url)

    @property
    def label(self) -> str:
        """The address."""
        return self.url

    @property
    def name(self) -> str:
        """The address without its scheme."""
        return self.url.partition("://")[2]

    @property
    def image_size(self) -> None:
        """Whatever the images are; the endpoint says what it cannot take."""
        return

    def pinned(self) -> Self:
        """Itself: what answers there is its owner's business."""
        return self

    def knowing(self, *, classes: int) -> Self:
        """See ``VictimSource``."""
        return replace(self, num_classes=classes)

    def decided_by(self, device: torch.device) -> dict[str, Any] | None:  # noqa: ARG002 - it computes elsewhere
        """Its address and its version: an endpoint has no digest, and only its user knows when it changes."""
        return None if self.version is None else {"endpoint": self.url, "version": self.version}

    def load(self, device: torch.device) -> Self:  # noqa: ARG002 - it computes elsewhere
        """Itself: a connection is made for each request."""
        return self

    def classify(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """See ``Classifier``.

        Raises:
            DataError: no answer after all attempts, another status than 200, or an answer that holds no array.
        """
        body = io.BytesIO()
        np.save(body, images, allow_pickle=False)
        answer = self._ask(body.getvalue())
        try:
            return _array(answer)
        except ValueError as error:
            raise DataError(self.url, str(error)) from error

    def _ask(self, body: bytes) -> bytes:
        """The body of the answer, after as many attempts as it takes and are allowed."""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE_S * 2 ** (attempt - 1))
            try:
                status, answer = self._post(body)
            except (OSError, http.client.HTTPException) as error:
                failure = _said(error, self.timeout_s)
                continue
            if status == http.client.OK:
                return answer
            failure = f"status {status}{_first_line(answer)}"
            if status != http.client.TOO_MANY_REQUESTS and status < http.client.INTERNAL_SERVER_ERROR:
                raise DataError(self.url, f"answered {len(body)} bytes of images with {failure}")
        raise DataError(self.url, f"no answer in {ATTEMPTS} attempts; the last: {failure}")

    def _post(self, body: bytes) -> tuple[int, bytes]:
        parts = urlsplit(self.url)
        connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = connect(parts.hostname or "", parts.port, timeout=self.timeout_s)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        late = threading.Event()
        try:
            connection.connect()
            clock = threading.Timer(self.timeout_s, _hang_up, [connection.sock, late])
            clock.daemon = True
            clock.start()
            try:
                connection.request("POST", path, body, {"Content-Type": NPY, "Accept": f"{NPY}, application/json"})
                response = connection.getresponse()
                answer = response.read(MAX_ANSWER_BYTES + 1)
            except (OSError, http.client.HTTPException):
                if not late.is_set():
                    raise
            finally:
                clock.cancel()
        finally:
            connection.close()
        if late.is_set():
            raise TimeoutError
        if len(answer) > MAX_ANSWER_BYTES:
            raise DataError(self.url, f"answered with over {MAX_ANSWER_BYTES} bytes; class scores are smaller")
        return response.status, answer


def _hang_up(sock: socket.socket, late: threading.Event) -> None:
    """End an exchange that takes too long: a timeout of the socket alone begins anew with each byte."""
    late.set()
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # beneath TLS, which another thread is in


def _array(answer: bytes) -> npt.NDArray[Any]:
    """An array from ``.npy`` bytes or JSON; nothing is allocated that the answer does not fill itself.

    Raises:
        ValueError: neither, or damaged.
    """
    if not arrays.is_npy(answer):
        try:
            return np.array(json.loads(answer), np.float64)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(
                f"answered with neither a .npy array nor a JSON list of lists of numbers{_first_line(answer)}"
            ) from error
    try:
        return arrays.from_npy(answer)
    except ValueError as error:
        raise ValueError(f"answered with {error}") from error


def _said(error: Exception, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused; is the server running?"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason})"
    return f"{type(error).__name__}: {error}"


def _first_line(body: bytes) -> str:
    """`` (…)`` with the start of a text, nothing when there is none."""
    lines = body[:2000].decode("utf-8", "replace").strip().splitlines()
    text = "".join(char for char in lines[0] if char.isprintable())[:200] if lines else ""
    return f" ({text})" if text else ""
