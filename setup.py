"""Generates the protobuf stubs and compiles the kernels while the package is built or installed."""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildPyWithGenerated(build_py):
    """`build_py` that makes what is not in the sources; editable installs come through here too."""

    def run(self) -> None:
        generate_stubs(ROOT)
        compile_kernels(ROOT)
        super().run()


def generate_stubs(root: Path) -> None:
    """Writes `*_pb2.py`, `*_pb2.pyi` and `*_pb2_grpc.py` beside the `.proto` files."""
    from grpc_tools import protoc

    files = sorted(str(path.relative_to(root)) for path in root.glob("protos/tandem/v1/*.proto"))
    outputs = [f"--{kind}_out={root}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", f"-I{root}", *outputs, *files]) != 0:
        raise SystemExit("protoc could not compile protos/tandem/v1")


def compile_kernels(root: Path) -> None:
    """Writes `kernels/libtandem.so`, on the machines there are kernels for."""
    sys.path.insert(0, str(root))
    from kernels import build

    if build.is_supported():
        build.build()


setup(cmdclass={"build_py": BuildPyWithGenerated})
