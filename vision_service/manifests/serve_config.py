"""The file that `serve deploy` takes."""

from typing import Any

from vision_service.config import VisionConfig
from vision_service.manifests.application import IMPORT_PATH, arguments_of, name_of


def serve_config(config: VisionConfig, digest: str) -> dict[str, Any]:
    """Ray's ServeDeploySchema with the one application.

    Args:
        config: The fronts' settings; `bundle` is its folder on hosts that name no other.
        digest: The bundle's.

    Raises:
        SettingError: `threads` is not set.
    """
    return {
        # The fronts answer gRPC themselves and call the replicas without a proxy.
        "proxy_location": "Disabled",
        "applications": [
            {
                "name": name_of(config, digest),
                "route_prefix": None,
                "import_path": IMPORT_PATH,
                "args": arguments_of(config, digest),
            }
        ],
    }
