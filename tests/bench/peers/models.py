"""The same random weights in each peer's own 4-bit form."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.bench.peers import places

# Each runs in its peer's environment, with the checkpoint and what to write.
_CONVERTERS = {
    "llamacpp": ("to_gguf",),
    "openvino": ("to_openvino",),
    "genai": ("to_genai", "128"),
    "genai32": ("to_genai", "32"),
}


def convert(folder: Path, size: str, peer: str) -> bool:
    """Makes a peer's model of a size unless it is there already.

    Returns:
        Whether there was something to do.

    Raises:
        subprocess.CalledProcessError: the peer's converter failed; it has said why.
    """
    target = places.model(folder, size, peer)
    if target.exists():
        return False
    # Under another name first: a folder that exists is a model that is whole.
    partial = target.with_name(f"partial-{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    python = str(places.python(folder, peer).absolute())
    module, *options = _CONVERTERS[peer]
    checkpoint = places.model(folder, size, places.TEXT)
    subprocess.run(
        [python, "-m", f"tests.bench.peers.{module}", str(checkpoint), str(partial), *options],
        check=True,
        cwd=places.ROOT,
        env={**os.environ, "PYTHONPATH": str(places.ROOT)},
    )
    partial.rename(target)
    return True
