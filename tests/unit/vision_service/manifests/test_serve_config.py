"""The file for `serve deploy` names the application that fronts look for, and Serve takes it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from protos.process.settings import SettingError
from vision_service.config import VisionConfig
from vision_service.manifests.application import IMPORT_PATH, build
from vision_service.manifests.serve_config import serve_config
from vision_service.manifests.text import to_yaml
from vision_service.replicas.applications import shared_application

DIGEST = "5a" * 32


def config(**settings: Any) -> VisionConfig:
    return VisionConfig(**{"bundle": "/models/2b", "threads": 4, **settings})


def test_serve_takes_the_file() -> None:
    text = to_yaml([serve_config(config(replicas=2), DIGEST)])
    schema = ServeDeploySchema.model_validate(yaml.safe_load(text))
    [application] = schema.applications
    assert application.import_path == IMPORT_PATH
    assert application.route_prefix is None
    assert schema.proxy_location == "Disabled"


def test_what_is_built_from_it_is_what_a_front_looks_for() -> None:
    settings = {"replicas": 2, "tower": "exact", "host_labels": "pool=vision", "port": 7}
    [written] = serve_config(config(**settings), DIGEST)["applications"]
    wanted = shared_application(config(**settings), DIGEST, cores=64)
    assert written["name"] == wanted.name
    deployment = build(written["args"])._bound_deployment
    assert deployment.num_replicas == 2
    assert deployment.init_args == wanted.arguments
    actor = deployment.ray_actor_options
    assert actor["num_cpus"] == 4
    assert actor["label_selector"] == {"pool": "vision"}


def test_only_what_is_not_the_default_and_not_the_front_s_is_written() -> None:
    [written] = serve_config(config(port=7, keep_replicas=True, replicas=2), DIGEST)["applications"]
    settings = {"bundle": "/models/2b", "threads": 4, "replicas": 2}
    assert written["args"] == {"digest": DIGEST, "settings": settings}


def test_a_relative_bundle_is_written_as_a_whole_path() -> None:
    [written] = serve_config(config(bundle="models"), DIGEST)["applications"]
    assert written["args"]["settings"]["bundle"] == str(Path("models").absolute())


def test_the_threads_must_be_told() -> None:
    with pytest.raises(SettingError, match="threads"):
        serve_config(config(threads=None), DIGEST)
