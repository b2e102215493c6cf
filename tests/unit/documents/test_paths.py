"""What documents name in backticks is there: files, folders, modules and what is in them."""

import re

import pytest

from tests.support.markdown import ROOT, spans, tables

DOCUMENTS = ["README.md", "DESIGN.md", "DECISIONS.md", "CONTRIBUTING.md", "SECURITY.md"]
PACKAGES = (
    "protos",
    "kernels",
    "vision_service",
    "decoder_service",
    "gateway",
    "deploy",
    "planner",
)
TREE = (*PACKAGES, "tests")

# Endings of files of this repository, whose names are paths even without a slash. Data files are
# not among them: `tandem.json` is in a bundle, `config.json` in a checkpoint.
_SOURCE = re.compile(r"[\w./*-]+\.(?:py|proto|cpp|h|toml|lock|md|sh)")
_IN_A_FOLDER = re.compile(rf"(?:{'|'.join(TREE)})/[\w./*-]*")
_DOTTED = re.compile(rf"(?:{'|'.join(TREE)})(?:\.\w+)+")


def missing_from(text: str) -> list[str]:
    """Spans of a text that name something of this repository which is not there."""
    return [span for span in spans(text) if not _is_there(span)]


def _is_there(span: str) -> bool:
    if span.startswith("."):  # the ending of a file
        return True
    if _SOURCE.fullmatch(span) or _IN_A_FOLDER.fullmatch(span):
        return any(path.is_dir() or not span.endswith("/") for path in ROOT.glob(span.rstrip("/")))
    if _DOTTED.fullmatch(span):
        return _dotted_is_there(span)
    return True


def _dotted_is_there(name: str) -> bool:
    """Whether it is a module, a package, generated from a .proto, or a name in a module."""
    path = ROOT.joinpath(*name.split("."))
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    module = path.parent.with_suffix(".py")
    if not module.is_file():
        return False
    pattern = rf"^(?:class|def|async def) {path.name}\b|^{path.name}\b.*="
    return re.search(pattern, module.read_text(), re.MULTILINE) is not None


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_in_backticks_is_there(document: str) -> None:
    assert missing_from((ROOT / document).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "span",
    [
        "gateway/no_such_file.py",
        "no_such_file.py",
        "gateway/no_such_folder/",
        "gateway/pipeline.py/",
        "tests/parity/test_no_such*.py",
        "gateway.no_such_module",
        "protos.bundle.manifest.NoSuchClass",
    ],
)
def test_a_name_of_what_is_not_there_is_noticed(span: str) -> None:
    assert missing_from(f"See `{span}`.") == [span]


def folders_with_sources() -> set[str]:
    """Folders of the packages and of tests down to their first level, as DESIGN.md writes them."""
    files = [path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file()]
    sources = {
        path.parent
        for path in files
        if path.suffix in (".py", ".cpp", ".h", ".proto")
        and path.name != "__init__.py"
        and "_pb2" not in path.name
    }
    tests = {path.parent for path in (ROOT / "tests").glob("*/*.py")} | {ROOT / "tests" / "unit"}
    return {f"{path.relative_to(ROOT)}/" for path in sources | tests}


def test_the_design_has_one_line_for_each_folder() -> None:
    (named,) = (
        [row[0].strip("`") for row in table.rows]
        for table in tables((ROOT / "DESIGN.md").read_text())
        if table.header[0] == "folder"
    )
    without_sources = {"deploy/dashboards/", "deploy/demo/", "gateway/page/"}
    assert len(named) == len(set(named))
    assert set(named) - without_sources == folders_with_sources()


def test_the_design_says_where_the_ten_changes_begin() -> None:
    (table,) = (
        table
        for table in tables((ROOT / "DESIGN.md").read_text())
        if table.header == ["change", "open", "then"]
    )
    assert len(table.rows) >= 10
    for row in table.rows:
        named = spans(row[1])
        assert named and all("/" in name for name in named), row
