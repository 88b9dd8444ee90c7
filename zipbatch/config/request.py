"""What a field of a request says beside its type and limits: how people write it, and what it decides.

A request is one job's settings in one frozen model. Command-line options, the inputs of a pipeline's stage, the Python
API and the identity of a result are made from it, so that a setting is written down once.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from zipbatch.config.settings import Settings

Decides = Literal["result", "selection", "identity", "nothing"]


@dataclass(frozen=True)
class Option:
    """Put beside a field's type, as in ``Annotated[int, Field(ge=1), Option("Network batch.", metavar="N")]``.

    Attributes:
        help: what the setting is, for people; other fields are named in it by references (``zipbatch.spelling``).
        flag: name on the command line, without its dashes, where it is not the field's own.
        metavar: what stands for the value in help.
        default: what help says of the default, where that is not a value of the field.
        settings_of: the field is a mapping of settings of this model, by name. Each field of the model that has an
            ``Option`` is a flag, and the mapping has those that are given. In help, ``default`` stands for the default
            of all of them; without it each shows its own.
        beside: a user's own default (``zipbatch config``) is taken only where this other field is given.
        instead_of: a user's own default is taken only where this other field is not given.
        decides: what the field decides. ``result``: another value gives another result, and the identity has the value
            as it stands, unless it is the default. ``identity``: as ``result``, but the identity tells of it in its own
            way. ``selection``: another value lets other samples in, each as it would be anyway. ``nothing``: the
            result is the same.
    """

    help: str = ""
    _: KW_ONLY
    flag: str | None = None
    metavar: str | None = None
    default: str | None = None
    settings_of: type[BaseModel] | None = None
    beside: str | None = None
    instead_of: str | None = None
    decides: Decides = "result"


Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    Option("Where the networks run; auto takes CUDA when it is there.", decides="nothing"),
]
"""A field of requests of which one process does the work."""


def option_of(field: FieldInfo) -> Option:
    """What a field says of itself; the plain option where it says nothing."""
    return next((entry for entry in field.metadata if isinstance(entry, Option)), Option())


def has_option(field: FieldInfo) -> bool:
    """Whether a field says anything of itself."""
    return any(isinstance(entry, Option) for entry in field.metadata)


def flag_of(name: str, field: FieldInfo) -> str:
    """How the command line has it: ``batch_size`` with dashes, unless the field says its flag."""
    return f"--{option_of(field).flag or name.replace('_', '-')}"


def settings_within(request: type[BaseModel]) -> dict[str, tuple[str, FieldInfo]]:
    """The settings that are given like fields but stand within one, which is a mapping: name -> that one, and field."""
    return {
        name: (holder, field)
        for holder, one in request.model_fields.items()
        if (model := option_of(one).settings_of) is not None
        for name, field in model.model_fields.items()
        if has_option(field)
    }


class Request(Settings):
    """Base of all requests."""

    def decisive(self, *decides: Decides) -> dict[str, Any]:
        """The fields that decide what is named, without those at their default: JSON values by name.

        A field that is added later changes nothing that does not use it.
        """
        names = {name for what in decides for name in _deciding(type(self), what)}
        return self.model_dump(mode="json", include=names, exclude_defaults=True)

    def given(self, *names: str) -> list[str]:
        """Those of the fields that were given, at their default, too; in the order of ``names``."""
        return [name for name in names if name in self.model_fields_set]

    def told(self) -> set[str]:
        """The fields that decide the result, of which the identity tells in a way of its own."""
        return _deciding(type(self), "identity")


def _deciding(model: type[Request], what: Decides) -> set[str]:
    return {name for name, field in model.model_fields.items() if option_of(field).decides == what}
