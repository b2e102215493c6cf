"""The tier's application on Serve: on a Ray of one process, and on a cluster that fronts share."""

import hashlib
import json
import os
from typing import Any

from vision_service.cluster.application import Application
from vision_service.cluster.shared import PREFIX, Placement
from vision_service.config import MOST_REPLICAS_PER_HOST, VisionConfig
from vision_service.replicas.deployment import EncoderDeployment
from vision_service.replicas.scaling import deployment_options

PRIVATE = "vision"

_DIGEST_DIGITS = 12
_SETTINGS_DIGITS = 6


def private_application(config: VisionConfig, *, cores: int) -> Application:
    """The application of this process alone, on a machine with `cores` cores."""
    return Application(
        name=PRIVATE,
        replica=EncoderDeployment,
        arguments=(config.replica_settings(cores=cores),),
        options=deployment_options(config),
    )


def shared_application(config: VisionConfig, digest: str, *, cores: int) -> Application:
    """The application of every front with this bundle and these settings.

    What a replica computes and refuses is in the name, so that fronts of two bundles, or of two
    settings, have two applications, and no image is split between them. How many replicas there
    are, with how many threads, is not: the front that came last says it.

    Args:
        config: The settings.
        digest: The bundle's.
        cores: Of this host.
    """
    settings = config.replica_settings(cores=cores)
    what = {name: settings[name] for name in settings.keys() - {"bundle", "threads"}}
    arguments = (settings, digest, bundle_folders(config))
    return Application(
        name=f"{PREFIX}{digest[:_DIGEST_DIGITS]}-{_hash(what)[:_SETTINGS_DIGITS]}",
        replica=EncoderDeployment,
        arguments=arguments,
        options=_placed(config, threads=settings["threads"]),
        version=_hash(arguments),
    )


def placement(config: VisionConfig, digest: str, application: Application) -> Placement:
    """Where the replicas of a shared application may run."""
    options = application.options["ray_actor_options"]
    needs = {"CPU": options["num_cpus"], "GPU": options["num_gpus"]}
    return Placement(
        digest=digest,
        folders=bundle_folders(config),
        needs={name: amount for name, amount in needs.items() if amount},
        labels=config.labels,
        startup_timeout_s=config.startup_timeout_s,
    )


def bundle_folders(config: VisionConfig) -> list[str]:
    """Where hosts that say nothing themselves look for the bundle."""
    named = (config.bundle_folders or "").split(os.pathsep)
    return [os.path.abspath(folder) for folder in (config.bundle, *named) if folder]


def _placed(config: VisionConfig, *, threads: int) -> dict[str, Any]:
    options = deployment_options(config)
    actor = {**options["ray_actor_options"], "num_cpus": threads}
    if config.labels:
        actor["label_selector"] = config.labels
    return {
        **options,
        "ray_actor_options": actor,
        # Always given: a host is barred by what Serve counts for it.
        "max_replicas_per_node": config.replicas_per_host or MOST_REPLICAS_PER_HOST,
    }


def _hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
