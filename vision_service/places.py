"""Where a host keeps the bundle: its folder may differ from host to host."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from protos.bundle.manifest import MANIFEST_NAME, Bundle, BundleError

VARIABLE = "VISION_BUNDLE"  # in the environment of a host's Ray node
PARTS = ("vision", "processor")  # what of a bundle the vision tier reads
_SHOWN = 12  # digits of a digest that a message shows


def folders(named: Sequence[str], environ: Mapping[str, str]) -> list[Path]:
    """Folders of this host that may be the bundle.

    Args:
        named: Where to look on a host that says nothing itself.
        environ: The environment of the host's Ray node; `VISION_BUNDLE` there holds the host's own
            folders, joined by the path separator.

    Returns:
        Each folder, or the bundles in it where it is a folder of bundles.
    """
    own = list(filter(None, environ.get(VARIABLE, "").split(os.pathsep)))
    found: list[Path] = []
    for folder in map(Path, own or named):
        within = sorted(path.parent for path in folder.glob(f"*/{MANIFEST_NAME}"))
        is_bundle = (folder / MANIFEST_NAME).is_file()
        found += [folder] if is_bundle or not within else within
    return list(dict.fromkeys(found))


def locate(digest: str, named: Sequence[str], environ: Mapping[str, str] = os.environ) -> Bundle:
    """The bundle of this digest on this host, its vision files whole.

    Args:
        digest: Hex SHA-256 of its tandem.json.
        named: See `folders`.
        environ: See `folders`.

    Raises:
        BundleError: no folder has it, or its files are damaged; one line about every folder.
    """
    faults = []
    for folder in folders(named, environ):
        try:
            bundle = Bundle.open(folder)
            if bundle.digest == digest:
                bundle.verify_files(PARTS)
                return bundle
            faults.append(f"{folder} has digest {bundle.digest[:_SHOWN]}")
        except BundleError as error:
            faults.append(str(error))
    looked = "; ".join(faults) or f"neither {VARIABLE} nor a folder is given"
    raise BundleError(f"no bundle of digest {digest[:_SHOWN]}: {looked}")
