"""``zipbatch ls``."""

from __future__ import annotations

from typing import Any

import click

from zipbatch.cli.options import JSON, emit_json


@click.command()
@click.argument("what", type=click.Choice(["attacks", "datasets", "purifiers", "presets", "pipelines", "schedules"]))
@JSON
def ls(what: str, as_json: bool) -> None:
    """List attacks, kinds of datasets, purifiers, presets, pipelines or schedules, with their parameters and source."""
    listing = {
        "attacks": _attacks,
        "datasets": _datasets,
        "purifiers": _purifiers,
        "presets": _presets,
        "pipelines": _pipelines,
        "schedules": _schedules,
    }
    rows = listing[what]()
    if as_json:
        emit_json({what: rows})
        return
    for row in rows:
        meaning = row.pop("meaning", {})
        click.echo(row.pop("name"))
        for key, value in row.items():
            if not isinstance(value, dict):
                click.echo(f"  {key}: {_text(value)}")
                continue
            click.echo(f"  {key}:")
            for name, entry in value.items():
                equals = ": " if isinstance(entry, dict) else "="
                click.echo(f"    {name + equals + _text(entry):<26}{meaning.get(name, '')}".rstrip())


def _text(value: object) -> str:
    """A value as ``--set`` and ``--param`` take it."""
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    if isinstance(value, dict):
        return " ".join(f"{name}={_text(entry)}" for name, entry in value.items()) or "none"
    return "null" if value is None else str(value)


def _attacks() -> list[dict[str, Any]]:
    from zipbatch.attacks import ATTACKS, PROFILES, attack_params

    return [
        {
            "name": attack.name,
            "target": attack.default_target,
            "poison_rate": attack.default_poison_rate,
            "clean_label": attack.clean_label,
            "train_transform": attack.train_transform,
            "params": {
                profile: attack_params(known[attack.name])
                for profile, known in PROFILES.items()
                if attack.name in known
            },
            "source": attack.source,
        }
        for attack in ATTACKS.values()
    ]


def _purifiers() -> list[dict[str, Any]]:
    from zipbatch.purifiers import PURIFIERS

    return [
        {
            "name": name,
            "does": (kind.__doc__ or "").strip().splitlines()[0],
            "settings": kind.settings_type().model_dump(mode="json"),
            "meaning": {name: field.description or "" for name, field in kind.settings_type.model_fields.items()},
            "needs_prior": kind.needs_prior,
            "source": kind.source,
        }
        for name, kind in PURIFIERS.items()
    ]


def _presets() -> list[dict[str, Any]]:
    from zipbatch.config import find_config, list_configs

    return [
        {"name": name, "group": group, "file": str(find_config(group, name))}
        for group in ("purifiers", "victims", "priors", "pipelines")
        for name in list_configs(group)
    ]


def _pipelines() -> list[dict[str, object]]:
    from zipbatch.config import PipelineConfig, find_config, list_configs, load_config

    rows: list[dict[str, object]] = []
    for name in list_configs("pipelines"):
        file = find_config("pipelines", name)
        config = load_config(file, PipelineConfig)
        matrix = {axis: list(cases) for axis, cases in config.matrix.items()}
        rows.append({"name": name, "about": config.about, "vars": config.vars, "matrix": matrix, "file": str(file)})
    return rows


def _schedules() -> list[dict[str, Any]]:
    from zipbatch.config import list_schedules

    return [
        {"name": file.name, "about": _about(file.read_text(encoding="utf-8")), "file": str(file)}
        for file in list_schedules()
    ]


def _about(text: str) -> str:
    """The first sentence of the comment that a file begins with."""
    lines = [line[1:].strip() for line in text.splitlines() if not line.startswith("#!")]
    return " ".join(lines).partition(". ")[0].partition("  ")[0].rstrip(".: ") + "."


def _datasets() -> list[dict[str, object]]:
    from zipbatch.stages.source import KINDS

    return [
        {"name": kind.name, "use": f"{kind.name}:PLACE", "PLACE": kind.form, "source": kind.source} for kind in KINDS
    ]
