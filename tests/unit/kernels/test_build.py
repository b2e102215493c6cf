"""What the kernels' compiler keeps, and when it compiles again."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from kernels import build

UNIT = build.Unit("one", "any", ("-O1",))


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source and a header of our own in the place of the kernels'."""
    folder = tmp_path / "native"
    folder.mkdir()
    (folder / "shared.h").write_text("inline int two() { return 2; }\n")
    (folder / "one.cpp").write_text('#include "shared.h"\nextern "C" int one() { return two(); }\n')
    monkeypatch.setattr(build, "SOURCES", folder)
    monkeypatch.setattr(build, "UNITS", (UNIT,))
    return folder


def test_an_objects_name_changes_with_source_header_flags_and_compiler(sources: Path) -> None:
    names = [UNIT.object_name("compiler 1"), UNIT.object_name("compiler 2")]
    names.append(replace(UNIT, flags=("-O2",)).object_name("compiler 1"))
    (sources / "shared.h").write_text("inline int two() { return 3; }\n")
    names.append(UNIT.object_name("compiler 1"))
    (sources / "one.cpp").write_text("\n")
    names.append(UNIT.object_name("compiler 1"))
    assert len(set(names)) == len(names)


def test_an_objects_name_is_the_same_for_the_same_inputs(sources: Path) -> None:
    before = UNIT.object_name("compiler")
    (sources / "other.cpp").write_text("int other;\n")
    assert UNIT.object_name("compiler") == before


def test_nothing_is_compiled_twice(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def zig(arguments: list[str], folder: Path) -> None:
        calls.append(arguments[0])
        Path(arguments[arguments.index("-o") + 1]).write_text(f"{arguments[0]} {time.time_ns()}")

    monkeypatch.setattr(build, "_zig", zig)
    monkeypatch.setattr(build, "_compiler", lambda: "compiler")
    library, objects = tmp_path / "lib.so", tmp_path / "objects"
    build.build(library, objects)
    build.build(library, objects)
    assert calls == ["c++", "cc", "cc"]
    (sources / "one.cpp").write_text("int changed;\n")
    build.build(library, objects)
    assert calls == ["c++", "cc", "cc", "c++", "cc"]
    assert len(list(objects.iterdir())) == 1  # the old object is gone, and every folder
