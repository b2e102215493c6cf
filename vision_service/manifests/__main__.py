"""`python -m vision_service.manifests serve|kuberay FLAGS` prints YAML; `tandem render` runs it."""

import os
import sys
from collections.abc import Mapping, Sequence

from protos.bundle.manifest import Bundle, BundleError
from protos.process import settings
from protos.process.settings import SettingError
from vision_service.config import VisionConfig
from vision_service.manifests.ray_service import RayServiceConfig, ray_service
from vision_service.manifests.serve_config import serve_config
from vision_service.manifests.text import to_yaml

PROGRAM = "tandem render"
EXIT_BAD_SETTING = 2

KINDS: dict[str, type[VisionConfig]] = {"serve": VisionConfig, "kuberay": RayServiceConfig}


def rendered(kind: str, argv: Sequence[str], environ: Mapping[str, str]) -> str:
    """The YAML of a kind of file.

    Args:
        kind: "serve" or "kuberay".
        argv: The fronts' flags; for kuberay also those of `RayServiceConfig`.
        environ: Where settings may be, too, as of a front.

    Raises:
        SettingError: a setting is wrong, or the kind is another.
        BundleError: the bundle cannot be opened.
    """
    wanted = KINDS.get(kind)
    if wanted is None:
        raise SettingError(f"expected serve or kuberay, got {kind!r}")
    config = settings.load(
        wanted, program=f"{PROGRAM} {kind}", prefix="VISION", argv=argv, environ=environ
    )
    digest = Bundle.open(config.bundle).digest
    if isinstance(config, RayServiceConfig):
        return to_yaml(ray_service(config, digest))
    return to_yaml([serve_config(config, digest)])


def main() -> int:
    """Prints a file, or what may be asked for; returns the exit code."""
    kind, *flags = sys.argv[1:] or ["--help"]
    if kind in ("-h", "--help"):
        # Those of kuberay are all there are.
        usage = f"{PROGRAM} {'|'.join(KINDS)} BUNDLE"
        settings.load(RayServiceConfig, program=usage, prefix="VISION", argv=["-h"], environ={})
    try:
        sys.stdout.write(rendered(kind, flags, os.environ))
    except (SettingError, BundleError) as error:
        sys.stderr.write(f"{PROGRAM}: {error}\n")
        return EXIT_BAD_SETTING
    return 0


if __name__ == "__main__":
    sys.exit(main())
