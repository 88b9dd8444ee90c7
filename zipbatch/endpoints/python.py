"""Functions of the user's own: a victim, or what puts a trigger on images.

``python:FILE.py:FUNCTION`` or ``python:package.module:FUNCTION``, only ever from the command line: naming it there is
the consent to run it. The function is called with RGB images, uint8 [N, H, W, 3]. A victim's returns class scores
[N, classes] (logits or probabilities; column i is class i of the data) as a numpy array, a torch tensor or a list of
lists. It is called by one thread at a time in each process; what it prints goes to stderr.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from zipbatch.atomic import sha256_file
from zipbatch.errors import DataError, UsageError
from zipbatch.storage import REPLACED

log = logging.getLogger(__name__)
_FORM = "python:FILE.py:FUNCTION or python:package.module:FUNCTION"
_ONE_AT_A_TIME = threading.RLock()
"""Over all functions of the process: they may share what they compute with, and stdout is everyone's."""


@dataclass(frozen=True, kw_only=True)
class NamedFunction:
    """A function by name.

    ``module`` is a dotted name, or the absolute path of a ``.py`` file, whose digest must be ``sha256`` when it is
    imported.
    """

    label: str
    module: str
    function: str
    sha256: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take ``python:MODULE:FUNCTION`` apart; nothing is imported yet.

        Raises:
            UsageError: another form, or no such file.
        """
        module, _, function = text.removeprefix("python:").rpartition(":")
        if not module or not function.isidentifier():
            raise UsageError(f"{text}: not of the form {_FORM}")
        if not module.endswith(".py"):
            if not all(part.isidentifier() for part in module.split(".")):
                raise UsageError(f"{text}: {module!r} is neither a .py file nor a module's name; the form is {_FORM}")
            return cls(label=text, module=module, function=function)
        if not Path(module).is_file():
            raise UsageError(f"{text}: no such file: {module}")
        return cls(label=text, module=str(Path(module).resolve()), function=function)

    @property
    def name(self) -> str:
        """File or module, and function."""
        return f"{Path(self.module).name}:{self.function}"

    @property
    def _file(self) -> Path | None:
        return Path(self.module) if self.module.endswith(".py") else None

    def pinned(self) -> Self:
        """The same function of the file as it is now; what that imports, and an installed module, are taken as they
        come.
        """
        return self if self._file is None else replace(self, sha256=self.sha256 or sha256_file(self._file))

    def load(self) -> PythonFunction:
        """Import the module, once in each process.

        Raises:
            UsageError: it is not there, fails while it is imported, or has no such function.
            DataError: the file is not the one that it was ``pinned`` to.
        """
        with _ONE_AT_A_TIME, contextlib.redirect_stdout(sys.stderr):
            try:
                module = _import(self.module) if self._file is None else _import_file(self._file, self.sha256)
            except DataError:
                raise
            except Exception as error:  # the user's own code may raise anything
                log.debug("import of %s failed", self.module, exc_info=True)
                hint = "" if self._file else "; a file is named as python:FILE.py:FUNCTION"
                raise UsageError(f"{self.label}: cannot be imported: {type(error).__name__}: {error}{hint}") from error
        function = getattr(module, self.function, None)
        if not callable(function):
            raise UsageError(f"{self.label}: {self.module} has no function {self.function!r}")
        return PythonFunction(self.label, function)


@dataclass(frozen=True)
class PythonFunction:
    """The function, ready to be called with a copy of images, uint8 [N, H, W, 3]."""

    label: str
    function: Callable[[npt.NDArray[np.uint8]], Any]

    def __call__(self, images: npt.NDArray[np.uint8]) -> Any:
        """What it returns.

        Raises:
            DataError: it raised.
        """
        with _ONE_AT_A_TIME, contextlib.redirect_stdout(sys.stderr):
            try:
                return self.function(images.copy())
            except Exception as error:  # the user's own code may raise anything
                log.debug("%s failed", self.label, exc_info=True)
                raise DataError(self.label, f"raised {type(error).__name__}: {error} (-vv: the traceback)") from error


@dataclass(frozen=True)
class PythonVictim:
    """A function that classifies: a ``VictimSource``.

    Attributes:
        called: the function.
        version: what its user calls what it is now; None where nobody says.
        num_classes: width of its scores; None until it was asked.
    """

    called: NamedFunction
    version: str | None = None
    num_classes: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """As ``NamedFunction.parse``."""
        return cls(NamedFunction.parse(text))

    @property
    def label(self) -> str:
        """As it was named."""
        return self.called.label

    @property
    def name(self) -> str:
        """File or module, and function."""
        return self.called.name

    @property
    def image_size(self) -> None:
        """Whatever the images are."""
        return

    def pinned(self) -> Self:
        """As ``NamedFunction.pinned``."""
        return replace(self, called=self.called.pinned())

    def knowing(self, *, classes: int) -> Self:
        """See ``VictimSource``."""
        return replace(self, num_classes=classes)

    def decided_by(self, device: torch.device) -> dict[str, Any] | None:  # noqa: ARG002 - the function chooses its own
        """The bytes of its file, and its version; an installed module has a version alone. What they load besides,
        weights for one, nobody sees.
        """
        if self.called.sha256 is None and self.version is None:
            return None
        module = self.called.module if self.called.sha256 is None else self.called.sha256
        return {"module": module, "function": self.called.function, "version": self.version}

    def load(self, device: torch.device) -> PythonClassifier:  # noqa: ARG002 - the function chooses its own
        """As ``NamedFunction.load``."""
        return PythonClassifier(self.called.load())


@dataclass(frozen=True)
class PythonClassifier:
    """Its function, ready to be asked."""

    function: PythonFunction

    def classify(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """See ``Classifier``. The function gets a copy of its own.

        Raises:
            DataError: it raised, or returned what no array can be made of.
        """
        returned = self.function(images)
        try:
            return returned.detach().cpu().numpy() if isinstance(returned, torch.Tensor) else np.asarray(returned)
        except (ValueError, TypeError) as error:
            raise DataError(self.function.label, str(error)) from error


def _import(name: str) -> ModuleType:
    return importlib.import_module(name)


def _import_file(path: Path, digest: str | None) -> ModuleType:
    """Run a file as a module of a name that no other has; its folder is searched for imports, as when it is run.

    It is run from these very bytes: Python's own cache of compiled files goes by size and time.
    """
    code = path.read_bytes()
    if digest not in {None, found := sha256(code).hexdigest()}:
        raise DataError(path, REPLACED)
    name = f"_zipbatch_victim_{sha256(f'{path} {found}'.encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # a .py file has one
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    sys.modules[name] = module
    try:
        exec(compile(code, path, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 (naming it was the consent)
    except BaseException:
        del sys.modules[name]
        raise
    return module
