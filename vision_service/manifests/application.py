"""The application as `serve deploy` builds it, on the cluster, from the arguments in its file."""

import dataclasses
import os
from collections.abc import Collection
from typing import Any

from ray import serve

from protos.process.settings import SettingError
from vision_service.cluster.application import Application
from vision_service.config import VisionConfig
from vision_service.replicas.applications import shared_application

IMPORT_PATH = f"{__name__}:build"

# Settings of a front's own process; what is left are the replicas'.
OF_A_FRONT = {
    "host",
    "port",
    "metrics_port",
    "wire_dtype",
    "startup_timeout_s",
    "drain_timeout_s",
    "object_store_mib",
    "ray_address",
    "ray_node_ip",
    "keep_replicas",
    "allow_insecure",
    "log_level",
}


def build(arguments: dict[str, Any]) -> serve.Application:
    """What Serve calls.

    Args:
        arguments: Of `arguments_of`.
    """
    return _application(VisionConfig(**arguments["settings"]), arguments["digest"]).bound()


def arguments_of(config: VisionConfig, digest: str) -> dict[str, Any]:
    """The arguments of `build`, as plain values: settings that are not the default, and a digest.

    Raises:
        SettingError: `threads` is not set.
    """
    if config.threads is None:
        raise SettingError(
            "threads is not set: a replica reserves so many CPUs of its host; give --threads"
        )
    settings = given(config, names=VisionConfig.__annotations__.keys() - OF_A_FRONT)
    return {"digest": digest, "settings": {**settings, "bundle": os.path.abspath(config.bundle)}}


def name_of(config: VisionConfig, digest: str) -> str:
    """The application's name, by which fronts with the same settings find it."""
    return _application(config, digest).name


def given(config: VisionConfig, *, names: Collection[str]) -> dict[str, Any]:
    """Those settings that differ from their defaults, by name; never a secret."""
    return {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name in names
        and not field.metadata["secret"]
        and getattr(config, field.name) != field.default
    }


def _application(config: VisionConfig, digest: str) -> Application:
    return shared_application(config, digest, cores=os.cpu_count() or 1)
