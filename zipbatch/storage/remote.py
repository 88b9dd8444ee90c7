"""Object stores through fsspec."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from zipbatch.errors import UsageError
from zipbatch.storage.retries import RefusedError, RetryPolicy, not_there, with_retries
from zipbatch.storage.stamp import Stamp, stamp_of

T = TypeVar("T")
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""URL scheme -> the extra of this package that brings its client."""
SINGLE_PUT_BYTES, PART_BYTES = 5 * 2**30, 2**29
"""What S3 takes in one request; anything larger goes up in parts, which become visible in one step too."""
_SLOWEST_BYTES_PER_S = 200_000
REQUESTS_AT_ONCE = 32
FIRST_CONTACT = RetryPolicy(tries=3, timeout_s=5.0)
"""At the first word with a store: a wrong address or a dead server is told within seconds."""


class Client:
    """A file system of fsspec's, each operation with patience. Paths are whole URLs.

    Errors of every operation: ``FileNotFoundError`` for what is not there, ``UnreachableError``, ``RefusedError``.
    """

    def __init__(self, scheme: str, policy: RetryPolicy, **settings: Any) -> None:
        import fsspec

        self._patience = policy
        try:
            self.fs = fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True, **settings)
        except ImportError as error:
            extra = EXTRAS.get(scheme)
            hint = f"pip install 'zipbatch[{extra}]'" if extra else str(error)
            raise UsageError(f"{scheme}://: the client for it is not installed: {hint}") from error
        except ValueError as error:
            raise UsageError(f"{scheme}://: not a kind of URL that fsspec knows") from error

    def reach(self, bucket: str) -> None:
        """Find out quickly whether there is anybody at the other end."""

    def info(self, url: str) -> dict[str, Any]:
        """Size, and whatever tells one content from the next, of the object of that very name."""
        found = self._ask(url, lambda: self.fs.info(url))
        if found.get("type") == "directory":
            raise not_there(url)
        return dict(found)

    def is_folder(self, url: str) -> bool:
        """Whether anything lies below that name."""
        try:
            return bool(self._ask(url, lambda: self.fs.info(url)).get("type") == "directory")
        except FileNotFoundError:
            return False

    def read(self, url: str, limit: int | None = None) -> bytes:
        """An object's bytes, or the first ``limit`` of them."""
        return bytes(self._ask(url, lambda: self.fs.cat_file(url, **_first(limit))))

    def download(self, url: str, file: Path) -> None:
        """An object into a local file."""
        self._ask(url, lambda: self.fs.get_file(url, str(file)))

    def put(self, url: str, data: bytes) -> None:
        """Bytes as an object, in one step."""
        self._put(url, lambda: self.fs.pipe_file(url, data, **self._limit(len(data))))

    def put_file(self, url: str, file: Path) -> None:
        """A finished local file as an object, in one step."""
        limit = self._limit(file.stat().st_size)
        self._put(url, lambda: self.fs.put_file(str(file), url, **limit))

    def put_unless_changed(self, url: str, data: bytes, etag: str | None) -> bool:
        """As ``put``, where the object is still the one of that ETag (None: is still missing); whether it was.

        Where the store has no conditional writes this is a plain put, which the reader's look just before it guards.
        """
        del etag
        self.put(url, data)
        return True

    def remove(self, url: str) -> None:
        """Remove an object."""
        self._ask(url, lambda: self.fs.rm_file(url))

    def below(self, url: str) -> list[str]:
        """Names of all objects below a folder, relative to it, sorted. Lists the store."""
        return [name for name, _ in self.stamps_below(url)]

    def stamps_below(self, url: str) -> list[tuple[str, Stamp]]:
        """The same with their stamps, which the listing tells."""
        found = self._listed(url, self.fs.find)
        return [(name, stamp_of(info)) for name, info in found.items() if not name.endswith("/")]

    def names(self, url: str) -> list[str]:
        """Names right in a folder, sorted. Lists the store."""
        return sorted({name.rstrip("/") for name in self._listed(url, self.fs.ls)})

    def _listed(self, url: str, look: Callable[..., Any]) -> dict[str, dict[str, Any]]:
        """Name below ``url`` -> what is known of it, sorted; a name that ends in ``/`` only marks a folder."""
        root = self.fs._strip_protocol(url).rstrip("/") + "/"
        try:
            found = self._ask(url, lambda: look(url, detail=True))
        except FileNotFoundError:
            return {}
        infos = sorted(found.values() if isinstance(found, dict) else found, key=lambda info: str(info["name"]))
        return {i["name"].removeprefix(root): i for i in infos if i["name"].startswith(root) and i["name"] != root}

    def _put(self, url: str, call: Callable[[], object]) -> None:
        try:
            self._ask(url, call)
        except FileNotFoundError:
            raise RefusedError(f"{url}: there is no such bucket; make it first, or name another") from None

    def _limit(self, size: int) -> dict[str, float]:
        """Time for a whole put: the socket's own timeout is off while bytes go out and after a ``100 Continue``."""
        return {"timeout": self._patience.timeout_s + size / _SLOWEST_BYTES_PER_S} if self.fs.async_impl else {}

    def _ask(self, url: str, call: Callable[[], T]) -> T:
        return with_retries(url, call, self._patience)


class S3Client(Client):
    """S3 and whatever speaks its language. Looks by key never become listings, and puts may be conditional.

    Credentials, region and endpoint come from where boto looks for them: environment, ``~/.aws``, the machine's role.
    """

    def __init__(self, scheme: str, policy: RetryPolicy) -> None:
        timeout_s = policy.timeout_s
        config = {
            "connect_timeout": min(10.0, timeout_s),
            "read_timeout": timeout_s,
            "max_pool_connections": REQUESTS_AT_ONCE,
            "retries": {"total_max_attempts": 1},
        }
        super().__init__(scheme, policy, config_kwargs=config)
        self.fs.retries = 1  # retries are counted in one place: in patiently

    def reach(self, bucket: str) -> None:
        """See ``Client``. Any answer will do."""
        timeout_s = min(FIRST_CONTACT.timeout_s, self._patience.timeout_s)
        tries = min(FIRST_CONTACT.tries, self._patience.tries)
        try:
            with_retries(
                f"s3://{bucket}",
                lambda: self.fs.call_s3("head_object", Bucket=bucket, Key="zipbatch", timeout=timeout_s),
                RetryPolicy(tries, timeout_s),
            )
        except FileNotFoundError:
            pass
        except RefusedError as error:
            if error.code not in {"403", "AccessDenied"}:
                raise

    def info(self, url: str) -> dict[str, Any]:
        """See ``Client``; one HEAD, where s3fs would go on to list what is below a missing key."""
        bucket, key = self._split(url)
        if not key:
            raise not_there(url)
        head = self._ask(url, lambda: self.fs.call_s3("head_object", Bucket=bucket, Key=key))
        return {"size": head["ContentLength"], "ETag": head["ETag"], "LastModified": head["LastModified"]}

    def read(self, url: str, limit: int | None = None) -> bytes:
        """See ``Client``; one GET, where s3fs would ask for the size first, and list for a missing key."""
        try:
            return bytes(self._ask(url, lambda: self.fs.cat_file(url, max_concurrency=1, **_first(limit))))
        except RefusedError as error:
            if error.code not in {"InvalidRange", "416"}:
                raise
            return b""  # an empty object has no first byte

    def put_file(self, url: str, file: Path) -> None:
        """See ``Client``."""
        size = file.stat().st_size
        chunk = SINGLE_PUT_BYTES if size < SINGLE_PUT_BYTES else PART_BYTES
        self._put(url, lambda: self.fs.put_file(str(file), url, chunksize=chunk, **self._limit(size)))

    def put_unless_changed(self, url: str, data: bytes, etag: str | None) -> bool:
        """See ``Client``; servers that do not know ``If-Match`` and ``If-None-Match`` on a put get a plain one."""
        bucket, key = self._split(url)
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        arguments = {"Bucket": bucket, "Key": key, "Body": data, **condition, **self._limit(len(data))}
        try:
            self._put(url, lambda: self.fs.call_s3("put_object", **arguments))
        except RefusedError as error:
            if error.code in {"PreconditionFailed", "412"}:
                return False
            if error.code not in {"NotImplemented", "501"}:
                raise
            self.put(url, data)
        return True

    def _split(self, url: str) -> tuple[str, str]:
        bucket, key, _ = self.fs.split_path(url)
        return str(bucket), str(key)


def _first(limit: int | None) -> dict[str, int]:
    return {} if limit is None else {"start": 0, "end": limit}


@cache
def client_for(scheme: str, bucket: str) -> Client:
    """The client of a bucket, which has answered once; one for each process.

    Raises:
        UsageError: no client is installed for such URLs.
        UnreachableError: nobody answers.
    """
    client = (S3Client if scheme in {"s3", "s3a"} else Client)(scheme, RetryPolicy.from_environment())
    client.reach(bucket)
    return client
