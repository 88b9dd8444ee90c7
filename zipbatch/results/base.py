"""What all results have in common: frozen, checked, with a unit to each number, dumped by one function."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a text")  # noqa: TRY004  pydantic takes no other
    return value


Text = Annotated[str, PlainValidator(_text, json_schema_input_type=str)]
"""A text as it is: names of files that are not UTF-8 are told, too, with half surrogates for their bytes."""


def unit(name: str) -> Any:
    """The unit of a number, beside its type; the JSON schema has it as ``unit``."""
    return Field(json_schema_extra={"unit": name})


Share = Annotated[float, unit("share, 0 to 1")]
Interval = Annotated[tuple[float, float], unit("share, 0 to 1")]
"""Lower and upper end of a 95 % interval."""
Images = Annotated[int, unit("images")]
Calls = Annotated[int, unit("network calls an image")]


class Result(BaseModel):
    """Base of all results: frozen, other fields are errors. The text below a field is its description in the schema.

    Fields are in the order of the JSON. One with a default may be missing in it: in rows of earlier versions, or where
    it says nothing.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        field_title_generator=lambda name, _: name,
    )

    def has(self, field: str) -> bool:
        """Whether the JSON has this field."""
        return field in self.model_fields_set


def dump(result: Result) -> dict[str, Any]:
    """A result as plain values for JSON, in the order of its fields, without those that it was not given."""
    return result.model_dump(exclude_unset=True)
