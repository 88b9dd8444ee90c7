"""``zipbatch ls``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zipbatch.cli.options import JSON, emit_json
from zipbatch.config import DEFAULTS, Settings

_TAKEN_BY = {
    "purifiers": "purify --preset",
    "victims": "train victim --preset",
    "priors": "train prior --preset",
    "pipelines": "run",
}


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
    from zipbatch.report.columns import Look, pairs_text
    from zipbatch.report.units import plain_text

    if what == "presets":
        _show_presets(rows)
        return
    for row in rows:
        meaning = row.pop("meaning", {})
        click.echo(row.pop("name"))
        lines = {
            key.replace("_", " "): plain_text(value)
            for key, value in row.items()
            if not isinstance(value, dict) and value not in (None, "")
        }
        click.echo(pairs_text(lines, Look()), nl=False)
        for key, value in row.items():
            if isinstance(value, dict) and value:
                click.echo(f"  {key}")
                entries = {
                    (name if isinstance(entry, dict) else f"{name}={plain_text(entry)}"): meaning.get(name, "")
                    or (plain_text(entry) if isinstance(entry, dict) else "")
                    for name, entry in value.items()
                }
                click.echo(pairs_text(entries, Look(), indent="    "), nl=False)
            if key == "params":  # by profile, so that what they mean stands once
                click.echo("  meaning")
                click.echo(pairs_text(meaning, Look(), indent="    "), nl=False)


def _show_presets(rows: list[dict[str, Any]]) -> None:
    """A name and what it is good for, under the command that takes it."""
    from zipbatch.report.columns import Look, pairs_text

    for group in dict.fromkeys(row["group"] for row in rows):
        own = [row for row in rows if row["group"] == group]
        click.echo(f"{group} ({_TAKEN_BY[group]}), in {Path(own[0]['file']).parent}")
        names = {f"{row['name']}{' (default)' if row['default'] else ''}": row["description"] for row in own}
        click.echo(pairs_text(names, Look()), nl=False)


def _attacks() -> list[dict[str, Any]]:
    from zipbatch.attacks import ATTACKS, PROFILES, FunctionAttack, attack_params

    return [
        {
            "name": attack.name,
            "target": attack.default_target,
            "poison_rate": attack.default_poison_rate,
            "cover_rate": attack.default_cover_rate or None,
            "clean_label": attack.clean_label,
            "train_transform": attack.train_transform,
            "needs": attack.needs,
            "params": {
                profile: attack_params(of[attack.name]) for profile, of in PROFILES.items() if attack.name in of
            },
            "meaning": _meaning(type(attack.settings)),
            "profiles": {
                profile: {"target": own.default_target, "poison_rate": own.default_poison_rate, "source": own.source}
                for profile, of in PROFILES.items()
                if profile != "standard" and (own := of.get(attack.name)) is not None
            },
            "source": attack.source,
        }
        for attack in ATTACKS.values()
    ] + [
        {
            "name": "python:FILE.py:FUNCTION",
            "target": FunctionAttack.default_target,
            "poison_rate": FunctionAttack.default_poison_rate,
            "clean_label": FunctionAttack.clean_label,
            "train_transform": None,
            "needs": "a function of yours: uint8 images [B, S, S, 3] in, the same stamped out; naming it runs it",
        }
    ]


def _purifiers() -> list[dict[str, Any]]:
    from zipbatch.purifiers import PURIFIERS

    return [
        {
            "name": name,
            "does": (kind.__doc__ or "").strip().splitlines()[0],
            "settings": kind.settings_type().model_dump(mode="json"),
            "meaning": _meaning(kind.settings_type),
            "needs_prior": kind.needs_prior,
            "source": kind.source,
        }
        for name, kind in PURIFIERS.items()
    ]


def _meaning(settings: type[Settings]) -> dict[str, str]:
    return {name: field.description or "" for name, field in settings.model_fields.items()}


def _presets() -> list[dict[str, Any]]:
    from zipbatch.config import find_config, list_configs, read_config, read_description

    rows = []
    for group in _TAKEN_BY:
        for name in list_configs(group):
            file = find_config(group, name)
            about = read_config(file).get("about", "") if group == "pipelines" else read_description(file)
            default = DEFAULTS.get(group) == name
            rows.append({"name": name, "group": group, "default": default, "description": about, "file": str(file)})
    return rows


def _pipelines() -> list[dict[str, object]]:
    from zipbatch.config import find_config, list_configs, load_config
    from zipbatch.pipeline.config import PipelineConfig

    rows: list[dict[str, object]] = []
    for name in list_configs("pipelines"):
        file = find_config("pipelines", name)
        config = load_config(file, PipelineConfig)
        matrix = {axis: list(cases) for axis, cases in config.axes.items()}
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
    from zipbatch.datasets.source import KINDS

    return [
        {"name": kind.name, "use": f"{kind.name}:PLACE", "PLACE": kind.form, "source": kind.source} for kind in KINDS
    ]
