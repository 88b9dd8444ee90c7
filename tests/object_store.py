"""A real S3 server on this machine (moto), that counts what it is asked and fails when it is told to."""

from __future__ import annotations

import fnmatch
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs

import boto3

from zipbatch.storage import Url

BUCKET = "zipbatch-tests"
SECRET = "s3cr3t-that-nobody-may-see"  # noqa: S105 - a made-up one
_PREFIXES = itertools.count()


@dataclass(frozen=True)
class Request:
    """What the server was asked."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]

    @property
    def lists(self) -> bool:
        """Whether it is a listing, whose cost grows with the number of objects."""
        return self.method == "GET" and self.path.strip("/").count("/") == 0


Fault = Callable[[Request], str | None]
"""What to do to a request: 'drop' it, 'hang', 'cut' the answer short, answer '503' …, or None to let it pass."""


class S3Server:
    """moto's S3 behind a real socket."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Silent(WSGIRequestHandler):
            protocol_version = "HTTP/1.1"

            def log(self, *arguments: object) -> None:
                pass

        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=Silent)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self._fault: Fault = lambda _: None
        self.requests: list[Request] = []
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @cache  # noqa: B019 - there is one server
    def client(self) -> Any:
        """boto3's, to look at what is there past the code under test."""
        return boto3.client("s3", endpoint_url=self.url)

    @contextmanager
    def failing(self, fault: Fault) -> Iterator[None]:
        """While the block lasts, treat requests as ``fault`` says."""
        self._fault = fault
        self.released.clear()
        try:
            yield
        finally:
            self._fault = lambda _: None
            self.released.set()

    @contextmanager
    def watched(self) -> Iterator[list[Request]]:
        """The requests that come while the block lasts."""
        self.requests = []
        yield self.requests

    def stop(self) -> None:
        self.released.set()
        self._server.shutdown()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        headers = {key[5:].replace("_", "-").lower(): str(v) for key, v in environ.items() if key.startswith("HTTP_")}
        request = Request(
            environ["REQUEST_METHOD"],
            environ["PATH_INFO"],
            parse_qs(environ["QUERY_STRING"], keep_blank_values=True),
            headers,
        )
        self.requests.append(request)
        what = self._fault(request)
        if what == "hang":
            self.released.wait(20)
            what = "drop"
        if what == "drop":
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError("dropped by the test")
        if what in {"503", "501", "403"}:
            code = {"503": "SlowDown", "501": "NotImplemented", "403": "AccessDenied"}[what]
            body = f"<Error><Code>{code}</Code><Message>{SECRET}</Message></Error>".encode()
            start(f"{what} No", [("Content-Length", str(len(body))), ("Content-Type", "application/xml")])
            return [] if request.method == "HEAD" else [body]
        answer = list(self._app(environ, start))
        if what == "cut-put":  # done, but nobody learns of it
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError("dropped by the test")
        if what == "cut":
            return _cut(b"".join(answer), environ["werkzeug.socket"])
        return answer


def _cut(body: bytes, connection: socket.socket) -> Iterator[bytes]:
    yield body[:-5]
    connection.shutdown(socket.SHUT_RDWR)


def times(count: int, what: str, *, of: Callable[[Request], bool] = lambda _: True) -> Fault:
    """A fault that befalls the first ``count`` requests of a kind."""
    left = [count]

    def fault(request: Request) -> str | None:
        if left[0] and of(request):
            left[0] -= 1
            return what
        return None

    return fault


class S3Path(Url):
    """A URL with pathlib's other words too, through boto3, so that one test can look into either kind of store."""

    server: S3Server

    @classmethod
    def fresh(cls) -> S3Path:
        """A prefix that nobody has used."""
        return cls._of("s3", (BUCKET, f"t{next(_PREFIXES):04d}"))

    @classmethod
    def _of(cls, scheme: str, parts: tuple[str, ...]) -> S3Path:
        return cls(f"{scheme}://{'/'.join(parts)}", scheme, parts)

    def __truediv__(self, name: str) -> S3Path:
        return self._of(self.scheme, (*self.parts, *str(name).split("/")))

    @property
    def parent(self) -> S3Path:
        return self._of(self.scheme, self.parts[:-1])

    def __lt__(self, other: S3Path) -> bool:
        return self.parts < other.parts

    @property
    def key(self) -> str:
        return "/".join(self.parts[1:])

    def write_bytes(self, data: bytes) -> None:
        self.server.client().put_object(Bucket=BUCKET, Key=self.key, Body=data)

    def write_text(self, text: str) -> None:
        self.write_bytes(text.encode())

    def mkdir(self, **_: object) -> None:
        pass

    def rglob(self, pattern: str) -> list[S3Path]:
        pages = self.server.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{self.key}/")
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        found = [self._of(self.scheme, (BUCKET, *key.split("/"))) for key in sorted(keys)]
        return [path for path in found if fnmatch.fnmatch(path.name, pattern)]

    def glob(self, pattern: str) -> list[S3Path]:
        folder, _, name = pattern.rpartition("/")
        depth = len(self.parts) + (2 if folder else 1)
        return [path for path in self.rglob(name) if len(path.parts) == depth]

    def iterdir(self) -> list[S3Path]:
        return list(dict.fromkeys(self / path.parts[len(self.parts)] for path in self.rglob("*")))

    def rename(self, target: S3Path) -> None:
        target.write_bytes(self.read_bytes())
        self.unlink()

    def relative_to(self, folder: S3Path) -> PurePosixPath:
        return PurePosixPath(*self.parts[len(folder.parts) :])

    def copy_from(self, folder: Path | S3Path) -> S3Path:
        """Everything below a folder, here."""
        for file in folder.rglob("*"):
            if file.is_file():
                (self / file.relative_to(folder).as_posix()).write_bytes(file.read_bytes())
        return self


def wait_for(condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
    """Until it holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)
