"""A virtual environment for every peer: their pins exclude each other and ours."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.peers import places

STAMP = "tandem-peer.txt"  # what an environment was made of


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What is installed, and what is taken out again."""

    requirements: Sequence[str]
    removed: Sequence[str] = ()
    build_variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def description(self) -> str:
        """The stamp's text."""
        return "\n".join([*self.requirements, *self.build_variables.values()]) + "\n"


ENVIRONMENTS: Mapping[str, Environment] = {
    # Built from source for this very processor: ten minutes on two cores; wants cmake and a
    # C++ compiler.
    "llamacpp": Environment(
        requirements=("llama-cpp-python==0.3.36", "gguf==0.19.0", "numpy"),
        build_variables={"CMAKE_ARGS": "-DGGML_NATIVE=ON"},
    ),
    "openvino": Environment(
        requirements=(
            "openvino==2026.4.1",
            "openvino-genai==2026.4.1.0",
            "nncf==3.4.0",
            "optimum-intel==2.2.0",
            "torch==2.13.0",
        ),
        removed=("torchvision",),  # does not load beside the CPU build of torch
    ),
    # torch and what follows are its model builder's.
    "genai": Environment(
        requirements=(
            "onnxruntime-genai==0.18.0",
            "onnxruntime==1.31.1",
            "torch==2.13.0",
            "transformers==5.23.0",
            "onnx",
            "onnx-ir",
            "safetensors",
        ),
    ),
}


def make_environment(folder: Path, peer: str) -> bool:
    """Makes a peer's environment unless it is there already.

    Returns:
        Whether there was something to do.

    Raises:
        subprocess.CalledProcessError: it could not be made; pip has said why.
    """
    wanted = ENVIRONMENTS[peer]
    home = places.environment(folder, peer)
    stamp = home / STAMP
    if stamp.exists() and stamp.read_text() == wanted.description:
        return False
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
    pip = [str(places.python(folder, peer)), "-m", "pip"]
    variables = {**os.environ, **wanted.build_variables}
    subprocess.run([*pip, "install", *wanted.requirements], check=True, env=variables)
    if wanted.removed:
        subprocess.run([*pip, "uninstall", "--yes", *wanted.removed], check=True)
    stamp.write_text(wanted.description)
    return True
