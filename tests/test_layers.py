"""The layers of ARCHITECTURE.md hold: imports point down, and some libraries are imported in one place only."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "zipbatch"

# Top to bottom. A module may import its own layer and those below it.
LAYERS: list[set[str]] = [
    {"cli", "api", "__main__"},
    {"pipeline"},
    {"stages"},
    {"cluster"},
    {"store", "datasets"},
    {"shards", "checkpoints", "endpoints", "report", "tracking"},
    {"results"},
    {"purifiers"},
    {"attacks", "diffusion", "victims", "metrics"},
    {"arrays", "images", "kinds", "pixels", "keys", "strays", "tars"},
    {"config", "user_config", "errors", "atomic", "filesystem", "logs", "memory", "spelling", "storage", "__init__"},
]
HEIGHT = {name: len(LAYERS) - i for i, names in enumerate(LAYERS) for name in names}


def unit_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports_of(path: Path) -> set[str]:
    """Every module a file imports at run time, anywhere in it; imports for type checking alone don't count."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def nearest_module(name: str) -> str | None:
    """The module that a name is imported from: itself, or the one that has it."""
    if name.split(".", maxsplit=1)[0] != "zipbatch":
        return None
    return name if name in MODULES else nearest_module(name.rpartition(".")[0]) if "." in name else None


FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {module_of(path) for path in FILES}


def test_every_unit_has_a_layer():
    units = {unit_of(f"zipbatch.{f.relative_to(PACKAGE).as_posix().removesuffix('.py').split('/')[0]}") for f in FILES}
    assert units <= set(HEIGHT)
    assert len(FILES) > 50


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_down(path: Path):
    own = path.relative_to(PACKAGE).as_posix().removesuffix(".py").split("/")[0]
    for module in imports_of(path):
        if module.startswith("zipbatch.__"):
            continue  # the version
        if module == "zipbatch" or module.startswith("zipbatch."):
            other = unit_of(module)
            assert HEIGHT[other] <= HEIGHT[own], f"{own} imports {module}, which is above it"


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        (
            "ray",
            {
                "cluster/actor.py",
                "cluster/connection.py",
                "cluster/driver.py",
                "cluster/nodes.py",
                "cluster/ray_pool.py",
            },
        ),
        ("tarfile", {"tars.py"}),
        ("webdataset", {"shards/writer.py"}),
        ("click", None),
        ("diffusers", {"checkpoints/schedule.py", "checkpoints/unet.py"}),
        ("http", {"endpoints/http.py"}),
        ("onnxruntime", {"checkpoints/onnx.py"}),
        ("onnx", {"checkpoints/onnx_model.py"}),
        ("fsspec", {"storage/remote.py"}),
        ("cryptography", {"store/signing.py"}),
        ("mlflow", {"tracking/mlflow.py"}),
        ("wandb", {"tracking/wandb.py"}),
        ("timm", {"victims/model.py"}),
        ("huggingface_hub", {"checkpoints/hub.py"}),
        ("matplotlib", {"report/curve.py", "report/figure.py", "report/sheet.py", "report/tradeoff.py"}),
        ("jinja2", {"report/page/html.py"}),
    ],
)
def test_libraries_stay_where_they_belong(library: str, allowed: set[str] | None):
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in FILES
        if any(module.split(".")[0] == library for module in imports_of(path))
    }
    if allowed is None:
        assert all(user.startswith("cli/") for user in users)
    else:
        assert users == allowed


@pytest.mark.parametrize("unit", ["attacks", "purifiers", "diffusion", "victims", "metrics"])
def test_pure_layers_know_no_path_log_or_clock(unit: str):
    for path in (PACKAGE / unit).rglob("*.py"):
        banned = {"pathlib", "logging", "time", "datetime", "os", "open"} & {m.split(".")[0] for m in imports_of(path)}
        assert not banned, f"{path.name} imports {banned}"


def test_no_module_imports_itself_through_others():
    """Cycles inside a package, too; imports within a function are counted, since they only hide a cycle."""
    graph = {
        module_of(path): {other for other in map(nearest_module, imports_of(path)) if other is not None}
        for path in FILES
    }
    try:
        TopologicalSorter({module: others - {module} for module, others in graph.items()}).prepare()
    except CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from error


MOST_LINES, MOST_OF_A_FUNCTION = 300, 40


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_is_seen_at_a_glance(path: Path):
    """Docstrings are not counted in a function, nor are commands, whose body is what help says."""
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef) or any(".command" in ast.unparse(d) for d in node.decorator_list):
            continue
        said = ast.get_docstring(node, clean=False)
        lines = node.end_lineno - node.lineno + 1 - (0 if said is None else said.count("\n") + 1)
        assert lines <= MOST_OF_A_FUNCTION, node.name


MOST_POSITIONAL = 3


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_dataclass_of_many_fields_is_built_by_their_names(path: Path):
    """A field put between two others then changes no meaning; the first ones may stand before ``KW_ONLY``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ClassDef) or not any("dataclass" in ast.unparse(d) for d in node.decorator_list):
            continue
        if any("kw_only=True" in ast.unparse(d) for d in node.decorator_list):
            continue
        fields = [ast.unparse(s.annotation) for s in node.body if isinstance(s, ast.AnnAssign)]
        fields = [annotation for annotation in fields if "ClassVar" not in annotation]
        positional = fields.index("KW_ONLY") if "KW_ONLY" in fields else len(fields)
        assert positional <= MOST_POSITIONAL, node.name
