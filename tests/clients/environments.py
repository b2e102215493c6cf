"""What is installed for each client, and how: an environment of its own under `.cache/clients`.

Versions are fixed, so that a client that breaks does so when somebody chose to take a newer one.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = ROOT / ".cache" / "clients"
DONE = ".installed"  # holds what was installed, once all of it was
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input")


class Kind(StrEnum):
    """What an environment is."""

    PYTHON = "python"
    NODE = "node"


class Unavailable(Exception):
    """A client cannot be had on this machine; the text says why, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A client, what it needs, and the script that drives it."""

    name: str
    packages: tuple[str, ...]  # exact versions; the first one is the client itself
    script: str  # below this folder
    kind: Kind = Kind.PYTHON
    least_python: tuple[int, int] = (3, 11)

    @property
    def version(self) -> str:
        """The version of the client itself."""
        return re.split(r"==|@", self.packages[0])[-1]

    @property
    def folder(self) -> Path:
        """Where its environment lies."""
        return CACHE / self.name.replace(" ", "-").lower()


CLIENTS = (
    Client(name="openai Python", packages=("openai==3.57.0",), script="libraries/openai_python.py"),
    Client(
        name="openai Node",
        packages=("openai@7.59.0", "zod@4"),
        script="node/openai.mjs",
        kind=Kind.NODE,
    ),
    Client(
        name="LiteLLM library",
        packages=("litellm==1.110.2",),
        script="libraries/litellm_library.py",
    ),
    Client(
        name="LiteLLM proxy",
        packages=("litellm[proxy]==1.108.7", "openai==3.57.0"),
        script="libraries/litellm_proxy.py",
    ),
    Client(
        name="LangChain",
        packages=("langchain-openai==1.7.4",),
        script="libraries/langchain_openai_chat.py",
    ),
    Client(
        name="LlamaIndex",
        packages=("llama-index-llms-openai-like==0.8.1",),
        script="libraries/llama_index_chat.py",
    ),
    Client(
        name="Vercel AI SDK",
        packages=("ai@7.0.173", "@ai-sdk/openai-compatible@3.0.92", "zod@4"),
        script="node/ai_sdk.mjs",
        kind=Kind.NODE,
    ),
    Client(
        name="instructor",
        packages=("instructor==1.17.0",),
        script="libraries/instructor_chat.py",
    ),
    Client(
        name="pydantic-ai",
        packages=("pydantic-ai-slim[openai]==2.68.0",),
        script="libraries/pydantic_ai_agent.py",
    ),
    Client(
        name="anthropic",
        packages=("anthropic==2.14.0",),
        script="libraries/anthropic_messages.py",
    ),
    Client(name="ollama", packages=("ollama==0.6.3",), script="libraries/ollama_chat.py"),
    Client(
        name="tritonclient",
        packages=("tritonclient[grpc]==2.73.0",),
        script="libraries/triton_infer.py",
    ),
    Client(name="llm", packages=("llm==0.36",), script="programs/llm_command.py"),
    Client(
        name="guidellm",
        # The CPU build of torch, where the index has it; others bring gigabytes of CUDA.
        packages=("guidellm[vision]==0.8.1", "torch==2.13.0"),
        script="programs/guidellm_command.py",
    ),
    Client(name="aiperf", packages=("aiperf==0.13.0",), script="programs/aiperf_command.py"),
    Client(
        name="inference-perf",
        packages=("inference-perf==0.7.0",),
        script="programs/inference_perf_command.py",
        least_python=(3, 12),
    ),
)


def install(client: Client) -> None:
    """Makes a client's environment unless it is there already.

    Raises:
        Unavailable: what it needs cannot be had here.
    """
    wanted = "\n".join((client.kind, *client.packages))
    done = client.folder / DONE
    if done.is_file() and done.read_text() == wanted:
        return
    shutil.rmtree(client.folder, ignore_errors=True)
    client.folder.mkdir(parents=True)
    if client.kind is Kind.NODE:
        _install_node(client)
    else:
        _install_python(client)
    done.write_text(wanted)


def command(client: Client) -> list[str]:
    """The command that runs a client's script."""
    if client.kind is Kind.NODE:
        # Node looks for packages beside the script, so a copy of the scripts lies there.
        shutil.copytree(HERE / "node", client.folder / "scripts", dirs_exist_ok=True)
        return ["node", str(client.folder / "scripts" / Path(client.script).name)]
    # -P: the script's own folder holds no packages, and its files have the names of some.
    return [str(client.folder / "bin" / "python"), "-P", str(HERE / client.script)]


def import_path() -> Path:
    """A folder in which a script finds `tests` and nothing else of this repository.

    Clients look for packages called `kernels` or `gateway` too, and must not find ours.
    """
    path = CACHE / "path"
    path.mkdir(parents=True, exist_ok=True)
    if not (path / "tests").exists():
        (path / "tests").symlink_to(ROOT / "tests")
    return path


def _install_python(client: Client) -> None:
    python = _interpreter(client.least_python)
    _run([python, "-m", "venv", str(client.folder)], client)
    own = str(client.folder / "bin" / "python")
    if any(package.startswith("torch==") for package in client.packages):
        _refuse_cuda(own, client)
    _run([own, *PIP, "install", "--quiet", "--no-compile", *client.packages], client)


def _install_node(client: Client) -> None:
    if shutil.which("npm") is None:
        raise Unavailable("npm is not installed")
    (client.folder / "package.json").write_text('{"private": true, "type": "module"}')
    options = ["--no-audit", "--no-fund", "--silent"]
    _run(["npm", "install", "--prefix", str(client.folder), *options, *client.packages], client)


def _interpreter(least: tuple[int, int]) -> str:
    if sys.version_info[:2] >= least:
        return str(Path(sys.base_prefix) / "bin" / "python3")
    newer = [f"{least[0]}.{minor}" for minor in range(least[1], least[1] + 5)]
    found = [shutil.which(f"python{version}") for version in newer]
    for version in newer:
        found += map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"))
    for python in filter(None, found):
        # A shim stands in the path for versions that are not chosen, and fails.
        if subprocess.run([python, "-c", ""], capture_output=True).returncode == 0:
            return python
    raise Unavailable(f"needs Python {least[0]}.{least[1]} or newer, which is not installed")


def _refuse_cuda(python: str, client: Client) -> None:
    """Asks pip what it would install, and refuses gigabytes of CUDA libraries.

    Raises:
        Unavailable: torch is to be had as a CUDA build only, or not at all.
    """
    report = client.folder / "report.json"
    options = ["--dry-run", "--quiet", f"--report={report}"]
    _run([python, *PIP, "install", *options, *client.packages], client)
    planned = [entry["metadata"]["name"] for entry in json.loads(report.read_text())["install"]]
    if any(name.startswith("nvidia-") for name in planned):
        raise Unavailable("needs torch, of which the index offers no CPU build")


def _run(command: Sequence[str], client: Client) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise Unavailable(f"not installed: {lines[-1] if lines else command[0]}")
