"""The trigger of an attack, from what a user brings for it: pictures, an array, a function of theirs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from zipbatch import arrays, atomic, images
from zipbatch.attacks import (
    Attack,
    FromArray,
    FromPicture,
    FromPictures,
    FunctionAttack,
    FunctionSettings,
    Trigger,
    get_attack,
)
from zipbatch.datasets.folders import files_below
from zipbatch.endpoints import NamedFunction
from zipbatch.errors import DataError, UsageError
from zipbatch.spelling import setting
from zipbatch.storage import held_to, plain, read_bytes
from zipbatch.strays import Tally

log = logging.getLogger(__name__)
PYTHON = "python:"
MAX_PICTURES = 10_000
MAX_POOL_BYTES = 512 * 1024**2
MAX_ARRAY_BYTES = 64 * 1024**2
_T = TypeVar("_T")


@dataclass(frozen=True)
class Material:
    """What a user brings for a trigger: picture files, and a file with an array. ``others`` lie in a folder of pictures
    and are none.
    """

    pictures: tuple[Path, ...] = ()
    array: Path | None = None
    others: Tally = field(default_factory=Tally)

    def identity(self, attack: Attack) -> dict[str, object]:
        """What of it decides staged bytes, as the staged options hold it."""
        told: dict[str, object] = {}
        if self.pictures:
            digests = [_digest(file, "‹trigger_image›") for file in self.pictures]
            if isinstance(attack, FromPictures):
                told["trigger_images"] = {"count": len(digests), "sha256": atomic.sha256_json(digests)}
            else:
                told["trigger_image_sha256"] = digests[0]
        if self.array is not None:
            told["trigger_array_sha256"] = _digest(self.array, "‹trigger_array›")
        return told

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within, every file stays as it is: it is read, and its digest is taken."""
        with ExitStack() as stack:
            for file in (*self.pictures, *(() if self.array is None else (self.array,))):
                if file.is_file():
                    stack.enter_context(held_to(file, None))
            yield


def find_material(named: Path | Sequence[Path] | None, array: Path | None) -> Material:
    """The files that a user names: pictures as they were named, those of a folder in its place and by their names
    within it.

    Raises:
        UsageError: a folder holds no picture, or they are too many.
    """
    found: list[Path] = []
    others = Tally()
    for place in (named,) if isinstance(named, Path) else named or ():
        found += _pictures_in(place, others) if place.is_dir() else [place]
    if len(found) > MAX_PICTURES:
        raise UsageError(f"‹trigger_image›: {len(found)} pictures, {MAX_PICTURES} at most")
    return Material(tuple(found), array, others)


def find_attack(name: str, params: Mapping[str, str], *, profile: str) -> Attack:
    """The attack of that name, or ``python:FILE.py:FUNCTION``, a function of the user's.

    Only for what was typed on a command line, or in a program of the user's: naming a function is the consent to run
    it.

    Raises:
        UsageError: as ``get_attack``; no such file or function, or parameters for it.
    """
    if not name.startswith(PYTHON):
        if ".py:" in name:
            raise UsageError(f"unknown attack {name!r}; a function of yours is named as {PYTHON}FILE.py:FUNCTION")
        return get_attack(name, params, profile=profile)
    if params or profile != "standard":
        raise UsageError(f"{setting('attack', name)}: a function has no ‹params› and no ‹profile›")
    function = NamedFunction.parse(name).pinned()
    if function.sha256 is None:
        raise UsageError(
            f"{setting('attack', name)}: name a .py file, {PYTHON}FILE.py:FUNCTION; its digest says what was staged"
        )
    return FunctionAttack(FunctionSettings(function=function.name, sha256=function.sha256), function.load())


def make_trigger(attack: Attack, material: Material, image_size: int, *, seed: int) -> Trigger:
    """The trigger for images of that size.

    Raises:
        UsageError: something is missing that it is made of, is of no use to it, or does not do.
    """
    _check_wanted(attack, material)
    if material.array is not None and isinstance(attack, FromArray):
        array = _read_array(material.array)
        return _told(setting("trigger_array", material.array), lambda: attack.trigger_from_array(array, image_size))
    if material.others.count:
        log.warning("‹trigger_image›: not taken, as they are no pictures: %s", material.others)
    if material.pictures and isinstance(attack, FromPictures):
        pictures = _read_pictures(attack, material.pictures, image_size)
        where = f"‹trigger_image› {' '.join(map(str, material.pictures[:4]))}"
        return _told(where, lambda: attack.trigger_from_pictures(pictures, image_size, seed=seed))
    if material.pictures and isinstance(attack, FromPicture):
        file = material.pictures[0]
        picture = _read_picture(file)
        return _told(setting("trigger_image", file), lambda: attack.trigger_from(picture, image_size))
    try:
        return attack.make_trigger(image_size, seed=seed)
    except ValueError as error:
        raise UsageError(f"attack {attack.name}: {error}; ‹image_size› resizes the images") from error


def stamp(
    attack: Attack, pixels: images.U8, trigger: Trigger, *, keys: Sequence[str], labels: Sequence[int], training: bool
) -> images.U8:
    """Images with the trigger; see ``Attack.apply``.

    Raises:
        DataError: a function of the user's failed, or returned no such images.
    """
    try:
        return attack.apply(pixels, trigger, keys=keys, labels=labels, training=training)
    except ValueError as error:
        if isinstance(attack, FunctionAttack):
            raise DataError(attack.settings.function, str(error)) from error
        raise


def _check_wanted(attack: Attack, material: Material) -> None:
    takes_pictures = isinstance(attack, FromPicture | FromPictures)
    if material.pictures and not takes_pictures:
        raise UsageError(f"‹trigger_image›: attack {attack.name} draws its own trigger, or makes it of something else")
    if material.array is not None and not isinstance(attack, FromArray):
        raise UsageError(f"‹trigger_array›: attack {attack.name} takes none")
    if attack.needs is not None and not material.pictures and material.array is None:
        raise UsageError(f"attack {attack.name} needs {attack.needs}")
    if isinstance(attack, FromPicture) and len(material.pictures) > 1:
        raise UsageError(f"‹trigger_image›: attack {attack.name} takes one picture, got {len(material.pictures)}")


def _told(where: str, make: Callable[[], _T]) -> _T:
    try:
        return make()
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error


def _pictures_in(folder: Path, others: Tally) -> list[Path]:
    found: list[Path] = []
    for file in files_below(folder, folder):
        if file.suffix[1:].lower() in images.SOURCE_EXTENSIONS:
            found.append(file)
        else:
            others.add(str(file))
    if not found:
        raise UsageError(
            f"{setting('trigger_image', folder)}: holds no picture ({', '.join(images.SOURCE_EXTENSIONS)})"
        )
    return found


def _digest(file: Path, option: str) -> str:
    if not file.is_file():
        raise UsageError(f"{option} {file}: no such file")
    return atomic.sha256_file(file)


def _read_pictures(attack: FromPictures, files: Sequence[Path], image_size: int) -> list[images.U8]:
    """RGBA as they are, or RGB of the images' size where that is what the attack takes."""
    if not attack.whole_pictures:
        return [_read_picture(file) for file in files]
    if (size := len(files) * 3 * image_size**2) > MAX_POOL_BYTES:
        raise UsageError(
            f"‹trigger_image›: {len(files)} pictures of {image_size} px take {size} bytes, over the limit of "
            f"{MAX_POOL_BYTES}; name fewer"
        )
    return [images.resize(_read_whole(file), image_size) for file in files]


def _read_whole(file: Path) -> images.U8:
    picture = _read_picture(file)
    if picture[:, :, 3].min() < 255:
        raise UsageError(
            f"{setting('trigger_image', file)}: has transparent pixels; flatten it onto a background first"
        )
    return picture[:, :, :3].copy()


def _read_picture(path: Path) -> images.U8:
    """Pixels uint8 RGBA [H, W, 4] of an image file that a user names.

    Raises:
        UsageError: it is not there or no picture.
    """
    try:
        plain(path)
        return images.decode_rgba(path.read_bytes(), path.suffix.removeprefix(".").lower())
    except DataError as error:
        raise UsageError(f"‹trigger_image› {error}") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{setting('trigger_image', path)}: {error}") from error


def _read_array(path: Path) -> arrays.Array:
    """The array of a ``.npy`` file that a user names.

    Raises:
        UsageError: it is not there, too large or no array.
    """
    try:
        return arrays.from_npy(read_bytes(path, limit=MAX_ARRAY_BYTES))
    except DataError as error:
        raise UsageError(f"‹trigger_array› {error}") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{setting('trigger_array', path)}: {error}") from error
