"""Who may import what: services import only `protos`, rooms only what lies below them."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "protos",
    "kernels",
    "vision_service",
    "decoder_service",
    "gateway",
    "deploy",
    "planner",
)
MOST_FILES_IN_A_FOLDER = 13

# Our packages each package may import, itself apart.
ALLOWED = {
    "protos": set[str](),
    "kernels": set[str](),
    "vision_service": {"protos", "kernels"},
    "decoder_service": {"protos", "kernels"},
    "gateway": {"protos"},
    "deploy": {"protos", "kernels"},
    "planner": {"protos", "vision_service", "decoder_service", "gateway"},
}

# What of the services the planner may import: the policies that it simulates, and their values.
# None of them brings a model, an engine or a server into its process.
SIMULATED = (
    "decoder_service.cache",
    "decoder_service.sampling.parameters",
    "decoder_service.schedule",
    "decoder_service.sequence",
    "gateway.fleet.router",
    "vision_service.replicas.passes",
    "vision_service.scaling",
)

# Rooms of a package (files and folders), lowest first: a room imports only rooms of rows above it
# in this list, never one of its own row.
LAYERS = {
    "protos": [["machine", "tandem"], ["bundle", "wire"], ["media", "process"]],
    "kernels": [
        ["build", "layout", "int8_layout", "float_layout"],
        ["library"],
        ["passes", "resize"],
    ],
    "gateway": [
        ["histograms", "media", "threads"],
        ["fleet"],
        ["settings", "request"],
        ["config"],
        ["access", "tools"],
        ["prompt"],
        ["answer"],
        ["tiers"],
        ["brought", "metrics"],
        ["feeding"],
        ["generation", "preparing"],
        ["derived", "pipeline"],
        ["service"],
        ["http", "rpc"],
        ["app"],
        ["__main__"],
    ],
    "vision_service": [
        ["config", "jobs", "metrics", "places", "scaling"],
        ["cluster", "image_requests", "video_requests"],
        ["box", "servicer", "families"],
        ["media", "open_inference"],
        ["pdfs", "towers", "videos", "routing"],
        ["replicas"],
        ["app", "manifests"],
        ["__main__"],
    ],
    "decoder_service": [
        ["sampling", "grammar"],
        ["config", "sequence"],
        ["cache"],
        ["model", "schedule"],
        ["engine"],
        ["rpc"],
        ["app"],
        ["__main__"],
    ],
    "deploy": [
        ["divergence", "machine", "tower_loss"],
        ["client", "export", "install", "stack", "terminal"],
        ["load"],
        ["certificates", "commands"],
        ["costs"],
        ["cli"],
    ],
    "planner": [
        ["fields"],
        ["processors"],
        ["costs", "load"],
        ["simulation"],
        ["search"],
        ["show"],
        ["__main__"],
    ],
    "planner/simulation": [
        ["clock", "requests", "spread"],
        ["core", "outcome"],
        ["encoder", "way"],
        ["decoder"],
        ["autoscale"],
        ["run"],
    ],
    "deploy/costs": [
        ["questions"],
        ["measurement"],
    ],
    "deploy/machine": [
        ["finding", "forms", "rates"],
        ["estimate", "needs"],
        ["bundle"],
    ],
    "deploy/cli": [
        ["modules", "options"],
        ["asking", "measuring", "serving"],
        ["__main__"],
    ],
    "deploy/load": [
        ["options", "plan", "records"],
        ["bodies", "client", "driver", "figures"],
        ["plot", "run", "show"],
        ["command"],
    ],
    "deploy/export": [
        ["errors", "progress"],
        ["json_keys", "options", "partial"],
        ["families"],
        ["libraries", "checkpoint"],
        ["decoder", "graph_runs", "comparison"],
        ["vision"],
        ["manifest"],
        ["quality"],
        ["needs"],
        ["exporter"],
        ["__main__"],
    ],
}

# Libraries and the only modules (path prefixes) that may import them.
FENCES = {
    "torch": ("vision_service/", "deploy/export/"),
    "transformers": ("vision_service/", "deploy/export/"),
    "ray": (
        "vision_service/cluster/",
        "vision_service/replicas/encoders.py",
        "vision_service/replicas/lean_node.py",
        "vision_service/replicas/ray_runtime.py",
        "vision_service/manifests/",
        "vision_service/routing/plain_calls.py",
        "vision_service/routing/request_router.py",
    ),
    "onnxruntime": (
        "decoder_service/model/sessions.py",
        "vision_service/towers/onnx_tower.py",
        "deploy/export/",
    ),
    "onnxruntime_genai": ("deploy/export/",),
    "onnx": ("deploy/export/",),
    "onnx_ir": ("deploy/export/",),
    "av": ("vision_service/videos/containers.py",),
    "pypdfium2": ("vision_service/pdfs/pages.py",),
    "cryptography": ("deploy/certificates.py", "protos/wire/credentials.py"),
    "opentelemetry": ("protos/process/trace_export.py",),
    "starlette": ("gateway/http/",),
    "dns": ("gateway/fleet/names.py",),
    "aiohttp": ("gateway/media/http_files.py", "deploy/load/client.py"),
    "uvicorn": ("gateway/http/serving/",),
    "httptools": ("gateway/http/serving/protocol.py",),
    "tokenizers": ("gateway/prompt/tokenizer.py",),
    "llguidance": ("decoder_service/grammar",),
    "jinja2": ("gateway/prompt/template.py",),
}


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the product with the package that owns it, generated ones apart."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "_pb2" not in path.name:
                yield package, path


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


MODULES = {name_of(path): path for _, path in modules()}


@cache
def imports_of(path: Path) -> tuple[str, ...]:
    """Imported modules; of `from package import module` the module."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module or ""


def room_of(module: str, building: str) -> str | None:
    """The room of a building (a package, or a folder with rooms of its own) a module lies in."""
    prefix = building.replace("/", ".") + "."
    return module.removeprefix(prefix).partition(".")[0] if module.startswith(prefix) else None


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_they_may(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for owner, path in modules()
        if owner == package
        for name in imports_of(path)
        if (top := name.partition(".")[0]) in (*PACKAGES, "tests")
        and top != package
        and top not in ALLOWED[package]
    ]
    assert wrong == []


@pytest.mark.parametrize("building", LAYERS)
def test_rooms_import_only_rooms_below_them(building: str) -> None:
    floors = {room: floor for floor, row in enumerate(LAYERS[building]) for room in row}
    wrong = []
    for module, path in MODULES.items():
        room = room_of(module, building)
        if room is None or room == "__init__":
            continue
        assert room in floors, f"{building}/{room} has no place in LAYERS"
        for name in imports_of(path):
            below = room_of(name, building)
            if below not in (None, room) and floors[below] >= floors[room]:
                wrong.append(f"{module} imports {name}")
    assert wrong == []


@pytest.mark.parametrize("building", LAYERS)
def test_every_room_named_in_the_layers_is_there(building: str) -> None:
    named = {room for row in LAYERS[building] for room in row}
    there = {room_of(module, building) for module in MODULES} - {None, "__init__"}
    assert named == there


def test_modules_import_each_other_in_no_circle() -> None:
    graph = {
        module: {name for name in imports_of(path) if name in MODULES}
        for module, path in MODULES.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError with the circle


def test_no_folder_holds_more_files_than_one_sees_at_once() -> None:
    counts = dict[str, int]()
    for path in MODULES.values():
        if path.name != "__init__.py":
            folder = str(path.parent.relative_to(ROOT))
            counts[folder] = counts.get(folder, 0) + 1
    assert {name: count for name, count in counts.items() if count > MOST_FILES_IN_A_FOLDER} == {}


def test_every_folder_says_in_one_docstring_what_its_files_do() -> None:
    wrong = []
    for folder in {path.parent for path in MODULES.values()}:
        body = ast.parse((folder / "__init__.py").read_text()).body
        if len(body) != 1 or not isinstance(body[0], ast.Expr):
            wrong.append(str(folder.relative_to(ROOT)))
    assert wrong == []


@pytest.mark.parametrize("library", sorted(FENCES))
def test_heavy_libraries_stay_in_their_modules(library: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for _, path in modules()
        for name in imports_of(path)
        if name.partition(".")[0] == library
        and not path.relative_to(ROOT).as_posix().startswith(FENCES[library])
    ]
    assert wrong == []


def test_the_planner_imports_policies_alone() -> None:
    services = {"vision_service", "decoder_service", "gateway"}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for package, path in modules()
        if package == "planner"
        for name in imports_of(path)
        if name.partition(".")[0] in services and not name.startswith(SIMULATED)
    ]
    assert wrong == []


def test_only_the_exporter_imports_itself() -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for _, path in modules()
        if "export" not in path.parts
        for name in imports_of(path)
        if name.startswith("deploy.export")
    ]
    assert wrong == []
