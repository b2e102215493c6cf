"""Compiles the operators, with the C++ compiler that the `ziglang` wheel brings.

    python -m kernels.build

Setup runs it; a bare machine needs no compiler of its own.
"""

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent / "native"
LIBRARY = Path(__file__).parent / "libtandem.so"

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
AMX = (*AVX512, "-mamx-tile", "-mamx-int8", "-mamx-bf16")
INSTRUCTION_SETS = {"avx512": AVX512, "avxvnni": AVXVNNI, "avx2": AVX2}
# The arithmetic, compiled once for each instruction set; what surrounds it runs on any processor.
KERNELS = ("matmul", "attention", "matmul_int8", "tower_attention", "tower_attention_fast")
TILE_KERNELS = ("matmul_int8",)  # that have a fourth one, for matrix tiles
SURROUNDINGS = (
    *("matmul_op", "attention_op", "matmul_int8_op", "tower_attention_op"),
    *("processor", "library"),
)
# Sources with what each is compiled for and the compiler's flags for that.
UNITS = (
    *((name, isa, flags) for name in KERNELS for isa, flags in INSTRUCTION_SETS.items()),
    *((name, "amx", AMX) for name in TILE_KERNELS),
    *((name, "any", ()) for name in SURROUNDINGS),
)


class BuildError(Exception):
    """The compiler is missing or refused a source; the text says which."""


def is_supported() -> bool:
    """Whether there are kernels for this kind of machine: x86-64 Linux."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def build(library: Path = LIBRARY) -> Path:
    """Compiles the sources to a shared library.

    Raises:
        BuildError: the compiler is missing or fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        objects = []
        for name, isa, flags in UNITS:
            source, made = SOURCES / f"{name}.cpp", Path(folder) / f"{name}.{isa}.o"
            _compile(["c++", *FLAGS, *flags, "-c", str(source), "-o", str(made)], folder)
            objects.append(str(made))
        linked = Path(folder) / library.name
        # The C driver: nothing of a C++ runtime is used or wanted in the process.
        _compile(["cc", *TARGET, "-shared", "-s", "-o", str(linked), *objects], folder)
        # A decoder that runs has the old file mapped: it keeps it, the next one finds the new one.
        staged = library.with_suffix(".partial")
        staged.write_bytes(linked.read_bytes())
        staged.replace(library)
    return library


def _compile(arguments: list[str], folder: str) -> None:
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
