"""Compiles the operators, with the C++ compiler that the `ziglang` wheel brings.

    python -m kernels.build

Setup runs it; a bare machine needs no compiler of its own. What was compiled is kept in
`build/kernels` and used again for as long as its sources, its flags and the compiler are the same.
"""

import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from itertools import repeat
from pathlib import Path

SOURCES = Path(__file__).parent / "native"
ROOMS = ("runtime", "arithmetic", "products", "int8", "attention", "tower")  # folders of it
LIBRARY = Path(__file__).parent / "libtandem.so"
OBJECTS = Path(__file__).parents[1] / "build" / "kernels"

# The oldest C library it runs with: that of Debian 10 and Ubuntu 20.04.
TARGET = ("-target", "x86_64-linux-gnu.2.28")
FLAGS = (
    *TARGET,
    *("-std=c++20", "-O3", "-fPIC", "-fvisibility=hidden"),
    *("-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics"),
    *("-Wall", "-Wextra", "-Werror"),
)
AVX2 = ("-mavx2", "-mfma", "-mf16c")
AVXVNNI = (*AVX2, "-mavxvnni")
AVX512 = (
    *AVX2,
    *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni"),
    "-mprefer-vector-width=512",
)


@dataclass(frozen=True, slots=True)
class Unit:
    """One source, compiled for one instruction set."""

    name: str  # of the source, without its ending
    isa: str
    flags: tuple[str, ...]

    @property
    def source(self) -> Path:
        """The file to compile."""
        (found,) = SOURCES.rglob(f"{self.name}.cpp")
        return found

    def object_name(self, compiler: str) -> str:
        """A file name that differs whenever the object may."""
        digest = hashlib.sha256(repr((compiler, FLAGS, self.flags)).encode())
        for file in sorted([*SOURCES.rglob("*.h"), self.source]):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
        return f"{self.name}.{self.isa}.{digest.hexdigest()[:16]}.o"


AMX = (*AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-int8", "-mamx-bf16")
INSTRUCTION_SETS = {"avx512": AVX512, "avxvnni": AVXVNNI, "avx2": AVX2}
# The arithmetic, compiled once for each instruction set; what surrounds it runs on any processor.
KERNELS = (
    *("matmul", "attention", "matmul_int8", "matmul_float"),
    *("tower_attention", "tower_attention_fast"),
)
# That have a fourth one, for matrix tiles, or only that.
TILE_KERNELS = ("tower_attention_tiles", "matmul_int8_tiles", "mlp_int8_tiles", "matmul_float")
SURROUNDINGS = (
    *("matmul_op", "attention_op", "matmul_int8_op", "mlp_int8_op", "matmul_float_op"),
    *("tower_attention_op", "processor", "members", "resize", "library"),
)
UNITS = (
    *(Unit(name, isa, flags) for name in KERNELS for isa, flags in INSTRUCTION_SETS.items()),
    *(Unit(name, "amx", AMX) for name in TILE_KERNELS),
    *(Unit(name, "any", ()) for name in SURROUNDINGS),
)


class BuildError(Exception):
    """The compiler is missing or refused a source; the text says which."""


def is_supported() -> bool:
    """Whether there are kernels for this kind of machine: x86-64 Linux."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def build(library: Path = LIBRARY, objects: Path = OBJECTS) -> Path:
    """Compiles the sources to a shared library.

    Args:
        library: The file to write.
        objects: Where compiled sources are kept for the next time; others' are removed.

    Returns:
        `library`.

    Raises:
        BuildError: the compiler is missing or fails.
    """
    made = [objects / unit.object_name(_compiler()) for unit in UNITS]
    objects.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=objects) as folder:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
            list(threads.map(_compile, UNITS, made, repeat(Path(folder))))
        _link(made, library, Path(folder))
    for file in set(objects.glob("*.o")) - set(made):
        file.unlink(missing_ok=True)
    return library


def _compiler() -> str:
    try:
        return f"ziglang {metadata.version('ziglang')}"
    except metadata.PackageNotFoundError as error:
        raise BuildError("the kernels need a compiler: pip install ziglang") from error


def _compile(unit: Unit, target: Path, folder: Path) -> None:
    if target.exists():
        return
    made = folder / target.name
    includes = [f"-I{SOURCES / room}" for room in ROOMS]
    _zig(["c++", *FLAGS, *unit.flags, *includes, "-c", str(unit.source), "-o", str(made)], folder)
    made.replace(target)


def _link(objects: list[Path], library: Path, folder: Path) -> None:
    linked = folder / library.name
    # The C driver, and of the libraries it adds only C's: nothing of a C++ runtime is used or
    # wanted in the process, and the compiler's own takes longer to make than everything else.
    # `defs`: a symbol that is nowhere shall fail here, not when the library is loaded.
    libraries = ("-nostdlib", "-lc", "-lm", "-Wl,-z,defs")
    files = [str(file) for file in objects]
    _zig(["cc", *TARGET, "-shared", "-s", *files, *libraries, "-o", str(linked)], folder)
    # A decoder that runs has the old file mapped: it keeps it, the next one finds the new one.
    staged = library.with_suffix(".partial")
    staged.write_bytes(linked.read_bytes())
    staged.replace(library)


def _zig(arguments: list[str], folder: Path) -> None:
    caches = {f"ZIG_{kind}_CACHE_DIR": f"{folder}/{kind}" for kind in ("LOCAL", "GLOBAL")}
    done = subprocess.run(
        [sys.executable, "-m", "ziglang", *arguments],
        env={**os.environ, **caches},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BuildError(f"the kernels do not compile:\n{done.stdout}")


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{build()}\n")
    except BuildError as error:
        sys.exit(str(error))
