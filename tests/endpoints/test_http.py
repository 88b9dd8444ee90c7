"""The protocol on the wire, and every way in which an endpoint can fail to keep it. The server is real."""

from __future__ import annotations

import contextlib
import json
import pickle
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.serving import npy, serving
from zipbatch.endpoints import http
from zipbatch.endpoints.http import HttpVictim
from zipbatch.errors import DataError, UsageError
from zipbatch.victims import top1

IMAGES = np.random.default_rng(5).integers(0, 256, (4, 6, 6, 3)).astype(np.uint8)
SCORES = np.array([[0.1, 0.9], [0.8, 0.2], [0.5, 0.5], [0.0, 1.0]], np.float32)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Attempts follow each other at once."""
    monkeypatch.setattr(http, "PAUSE_S", 0.001)
    return


def test_the_request_is_npy_and_says_so():
    with serving(lambda images: (200, npy(images.mean(axis=(1, 2))))) as served:
        scores = HttpVictim.parse(served.url).classify(IMAGES)
    assert np.array_equal(served.images(0), IMAGES)
    assert served.images(0).dtype == np.uint8
    assert served.headers[0]["Content-Type"] == "application/x-npy"
    assert served.headers[0]["Accept"] == "application/x-npy, application/json"
    assert np.array_equal(scores, IMAGES.mean(axis=(1, 2)))


@pytest.mark.parametrize(
    "body",
    [
        npy(SCORES),
        npy(np.asfortranarray(SCORES)),
        npy(SCORES.astype(">f8")),
        npy((SCORES * 10).astype(np.int16)),
        json.dumps(SCORES.tolist()).encode(),
        b" [[0, 1], [1, 0], [3.5, 3.5], [-1e3, 0]]\n",
    ],
    ids=["npy", "fortran", "big-endian", "integers", "json", "json integers"],
)
def test_answers_in_either_form(body: bytes):
    with serving(lambda _: (200, body)) as served:
        victim = HttpVictim.parse(served.url)
        answers = top1(victim.load(torch.device("cpu")), torch.from_numpy(IMAGES).permute(0, 3, 1, 2))
    assert answers.tolist() == [1, 0, 0, 1]


def test_batches_go_one_by_one():
    with serving(lambda images: (200, npy(np.eye(9)[images[:, 0, 0, 0]]))) as served:
        images = torch.arange(7, dtype=torch.uint8).view(7, 1, 1, 1).expand(7, 3, 5, 4)
        assert top1(HttpVictim.parse(served.url), images, batch_size=3).tolist() == list(range(7))
    assert [served.images(i).shape for i in range(3)] == [(3, 5, 4, 3), (3, 5, 4, 3), (1, 5, 4, 3)]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (npy(SCORES[:3]), "answered 4 images with an array of shape (3, 2)"),
        (npy(SCORES[:, 0]), "shape (4,)"),
        (npy(SCORES[:, :1]), "gave 1 score an image"),
        (npy(np.where(SCORES == 0.8, np.nan, SCORES)), "gave NaN for image 1 of 4"),
        (b"[[0, 1], [NaN, 1], [0, 1], [0, 1]]", "gave NaN for image 1 of 4"),
    ],
)
def test_arrays_that_are_no_scores(body: bytes, words: str):
    with serving(lambda _: (200, body)) as served, pytest.raises(ValueError) as caught:
        top1(HttpVictim.parse(served.url), torch.from_numpy(IMAGES).permute(0, 3, 1, 2))
    assert words in str(caught.value)
    assert len(served.bodies) == 1, "a wrong answer is an answer: nothing is sent again"


class Evil:
    """Unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (str(self.marker), "w"))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[[1, 2], [3]]", "neither a .npy array nor a JSON list"),
        (b'{"scores": [[1, 2]]}', 'neither a .npy array nor a JSON list of lists of numbers ({"scores": [[1, 2]]})'),
        (b"<html>\nlogin", "(<html>)"),
        (b"", "neither a .npy array nor a JSON list"),
        (b"[" * 200_000, "neither a .npy array nor a JSON list"),
        (npy(SCORES)[:-1], "says float32 (4, 2) and holds 31 bytes"),
        (npy(SCORES) + b"\0", "holds 33 bytes"),
        (npy(SCORES)[:9], "damaged .npy"),
        (npy(SCORES).replace(b"(4, 2)", b"(4, x)"), "damaged .npy"),
        (npy(SCORES).replace(b"(4, 2), }          ", b"(4000000000000, 2)}"), "says float32 (4000000000000, 2)"),
        (npy(SCORES.astype(complex)), "complex128"),
        (npy(np.array(["a", "b"])), "<U1"),
    ],
)
def test_answers_that_are_no_arrays(body: bytes, words: str):
    with serving(lambda _: (200, body)) as served, pytest.raises(DataError) as caught:
        HttpVictim.parse(served.url).classify(IMAGES)
    assert words in str(caught.value)
    assert served.url in str(caught.value)
    assert len(served.bodies) == 1


@pytest.mark.parametrize("form", ["npy", "bare pickle"])
def test_a_pickle_in_an_answer_is_not_run(tmp_path: Path, form: str):
    evil = Evil(tmp_path / "marker")
    body = npy(np.array([[evil, evil]], object)) if form == "npy" else pickle.dumps(evil)
    with serving(lambda _: (200, body)) as served, pytest.raises(DataError):
        HttpVictim.parse(served.url).classify(IMAGES)
    assert not (tmp_path / "marker").exists()


def test_an_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 1000)
    with serving(lambda _: (200, b" " * 1001)) as served, pytest.raises(DataError, match="over 1000 bytes"):
        HttpVictim.parse(served.url).classify(IMAGES)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_stumbling_server_is_asked_again(status: int):
    answers = iter([(status, b"busy"), (status, b"busy"), (200, npy(SCORES))])
    with serving(lambda _: next(answers)) as served:
        assert np.array_equal(HttpVictim.parse(served.url).classify(IMAGES), SCORES)
    assert len(served.bodies) == 3
    assert len(set(served.bodies)) == 1


def test_attempts_are_bounded_and_the_last_error_is_told():
    with serving(lambda _: (503, b"model is loading\nsee log")) as served, pytest.raises(DataError) as caught:
        HttpVictim.parse(served.url).classify(IMAGES)
    assert "no answer in 3 attempts; the last: status 503 (model is loading)" in str(caught.value)
    assert len(served.bodies) == 3


@pytest.mark.parametrize("status", [204, 302, 400, 404, 422])
def test_other_statuses_are_final(status: int):
    with serving(lambda _: (status, b"wants 32 px")) as served, pytest.raises(DataError, match=f"status {status}"):
        HttpVictim.parse(served.url).classify(IMAGES)
    assert len(served.bodies) == 1


def test_a_wrong_path_is_told_with_what_the_server_says():
    with serving(lambda _: (200, npy(SCORES))) as served, pytest.raises(DataError, match=r"status 404 .*nothing here"):
        HttpVictim.parse(served.url + "/other?x=1").classify(IMAGES)


def test_silence_is_told():
    def late(images: np.ndarray) -> tuple[int, bytes]:
        time.sleep(0.3)
        return 200, npy(SCORES)

    with serving(late) as served, pytest.raises(DataError, match=r"3 attempts; the last: no answer within 0\.05 s"):
        HttpVictim(served.url, timeout_s=0.05).classify(IMAGES)


def test_nobody_there_is_told():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        with pytest.raises(DataError, match="connection refused; is the server running"):
            HttpVictim.parse(url).classify(IMAGES)


def test_https_to_a_plain_server_is_told():
    with serving(lambda _: (200, npy(SCORES))) as served, pytest.raises(DataError, match=r"TLS failed"):
        HttpVictim.parse(served.url.replace("http:", "https:")).classify(IMAGES)
    assert served.bodies == []


@pytest.mark.parametrize(
    "url",
    ["http://", "http:///predict", "http://host:99999/", "http://[::1/", "http://host/a b", "http://host/\r\nX: y"],
)
def test_addresses_that_are_none(url: str):
    with pytest.raises(UsageError, match="not an address"):
        HttpVictim.parse(url)


def test_a_password_in_an_address_is_refused_and_not_repeated():
    with pytest.raises(UsageError, match="must not hold a user name") as caught:
        HttpVictim.parse("http://me:secret@host/")
    assert "secret" not in str(caught.value)


def test_what_it_says_of_itself():
    victim = HttpVictim.parse("https://models.example/v1/predict?model=a")
    assert (victim.label, victim.name) == (victim.url, "models.example/v1/predict?model=a")
    assert (victim.num_classes, victim.image_size) == (None, None)
    assert pickle.loads(pickle.dumps(victim)) == victim


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"


@contextlib.contextmanager
def dripping(parts: Sequence[bytes], *, pause_s: float) -> Iterator[str]:
    """A server that answers byte by byte, or whatever ``parts`` are."""
    server, done = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve() -> None:
        while not done.is_set():
            with contextlib.suppress(OSError), server.accept()[0] as connection:
                connection.recv(65536)
                for part in parts:
                    connection.sendall(part)
                    if done.wait(pause_s):
                        return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
    finally:
        done.set()
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(10)


@pytest.mark.parametrize(
    "parts",
    [
        [HEAD, *[b" "] * 10_000],
        [b"HTTP/1.0 200 OK\r\n\r\n[[1", *[b"1"] * 10_000],
        [b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n"] * 10_000],
        [bytes([byte]) for byte in b"HTTP/1.1 200 OK" * 700],
    ],
    ids=["body", "body without length", "head", "status"],
)
def test_an_answer_that_drips_is_not_waited_for(parts: list[bytes], monkeypatch: pytest.MonkeyPatch):
    """Each byte comes within the timeout, the answer does not."""
    monkeypatch.setattr(http, "ATTEMPTS", 1)
    monkeypatch.setattr(http, "PAUSE_S", 0.0)
    started = time.monotonic()
    with dripping(parts, pause_s=0.02) as url, pytest.raises(DataError, match=r"no answer within 0.4 s|too|more than"):
        HttpVictim(url, timeout_s=0.4).classify(np.zeros((1, 4, 4, 3), np.uint8))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "body",
    [
        b"[[" + b"9" * 400 + b"]]",
        b"[" * 100_000,
        *(
            b"\x93NUMPY\x01\0" + len(head).to_bytes(2, "little") + head + bytes(4)
            for head in (
                b"{'descr': (",
                b"[",
                b"{1L",
                b"{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}",
                b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -1)}",
                b"{'descr': {1: 2}, 'fortran_order': False, 'shape': (1,)}",
            )
        ),
        b"\x93NUMPY\x09\0\xff\xff\xff\xff",
    ],
)
def test_answers_of_bad_faith(body: bytes):
    with serving(lambda _: (200, body)) as served, pytest.raises(DataError, match=r"answered with"):
        HttpVictim(served.url).classify(np.zeros((1, 4, 4, 3), np.uint8))
