"""Victims that are ONNX models, run by onnxruntime (``pip install 'zipbatch[onnx]'``).

A model file is a graph of known operators and their weights, given to onnxruntime as bytes that name neither code of
their own nor another file.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zipbatch.checkpoints.onnx_model import checked, read_model
from zipbatch.errors import DataError, UsageError
from zipbatch.kinds import head_of, instead
from zipbatch.storage import StoragePath, local_copy
from zipbatch.victims import Normalisation

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def runtime_version() -> str | None:
    """Of onnxruntime, None where it is not installed."""
    try:
        return metadata.version("onnxruntime")
    except metadata.PackageNotFoundError:
        return None


class OnnxClassifier:
    """A network of one float32 input [N, 3, H, W] whose first output is class scores [N, classes].

    A graph with a fixed batch is fed batches of that size, the last one filled up with its own last image. ``content``
    is the model where that is not what the file holds: the weights beside it are in it.

    Attributes:
        image_size: side of the images, pixels; None where the graph leaves it open.
        num_classes: width of the scores; None where the graph leaves it open.

    Raises:
        UsageError: onnxruntime is not installed or cannot read the file, its weights are elsewhere, or the graph takes
            something else.
    """

    def __init__(
        self, path: StoragePath, normalisation: Normalisation, *, bgr: bool = False, content: bytes | None = None
    ) -> None:
        self._path, self._bgr = path, bgr
        self._mean = np.array(normalisation.mean, np.float32).reshape(1, 3, 1, 1)
        self._std = np.array(normalisation.std, np.float32).reshape(1, 3, 1, 1)
        self._session = _session(path, checked(read_model(path) if content is None else content, path))
        try:
            self._read_graph()
        except UnicodeDecodeError as error:
            raise UsageError(f"{path}: names an input or output in other than UTF-8; export the model again") from error

    def _read_graph(self) -> None:
        path, inputs, outputs = self._path, self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or not _is_image_batch(inputs[0].shape):
            takes = ", ".join(f"{each.name}: {each.type} {each.shape}" for each in inputs)
            raise UsageError(f"{path}: must take one float32 input [N, 3, H, W], it takes {takes}")
        self._input, self._output = inputs[0].name, outputs[0].name
        batch, _, height, width = inputs[0].shape
        if isinstance(height, int) and isinstance(width, int) and height != width:
            raise UsageError(f"{path}: takes images of {width}x{height}; only square ones are supported")
        self._batch = batch if isinstance(batch, int) else None
        self.image_size: int | None = height if isinstance(height, int) else None
        scores = outputs[0].shape
        self.num_classes: int | None = scores[1] if len(scores) == 2 and isinstance(scores[1], int) else None

    def classify(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """See ``Classifier``.

        Raises:
            DataError: onnxruntime failed on these images.
        """
        unit = images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        x: npt.NDArray[np.float32] = (unit - self._mean) / self._std
        x = np.ascontiguousarray(x[:, ::-1] if self._bgr else x)
        step = self._batch or len(x)
        return np.concatenate([self._run(x[start : start + step], step) for start in range(0, len(x), step)])

    def _run(self, x: npt.NDArray[np.float32], rows: int) -> npt.NDArray[Any]:
        filled = np.concatenate([x, np.repeat(x[-1:], rows - len(x), axis=0)])
        try:
            scores: npt.NDArray[Any] = self._session.run([self._output], {self._input: filled})[0]
        except Exception as error:  # onnxruntime's errors share no base class
            raise DataError(self._path, f"onnxruntime cannot run it: {_first_line(error)}") from error
        return scores[: len(x)]


def _session(path: StoragePath, content: bytes) -> InferenceSession:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise UsageError(f"{path}: needs onnxruntime, which is not installed: pip install 'zipbatch[onnx]'") from error
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # its warnings are about speed, and go to stderr past our logging
        options.add_session_config_entry("session.load_model_format", "ONNX")  # what was looked through, and no other
        return onnxruntime.InferenceSession(
            content,
            options,
            providers=["CPUExecutionProvider"],
            enable_fallback=0,  # there is nothing to fall back on, and it would say so on stdout
        )
    except Exception as error:  # onnxruntime's errors share no base class
        with local_copy(path) as file:
            told = instead(head_of(file), "an ONNX model", fit={"onnx"})
        if told:
            raise UsageError(f"{path}: {told}") from error
        raise UsageError(f"{path}: not a model that onnxruntime can read: {_first_line(error)}") from error


def _is_image_batch(shape: list[int | str | None]) -> bool:
    return len(shape) == 4 and (not isinstance(shape[1], int) or shape[1] == 3)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
