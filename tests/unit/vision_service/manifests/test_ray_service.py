"""The manifest for KubeRay, against its schema and against what its parts say of each other."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from protos.process import settings
from protos.process.settings import SettingError
from protos.wire.channels import VISION_PORT
from vision_service.config import VisionConfig
from vision_service.manifests.ray_service import FOLDER, RayServiceConfig, ray_service
from vision_service.manifests.serve_config import serve_config
from vision_service.manifests.text import to_yaml

DIGEST = "5a" * 32
SCHEMA = Path(__file__).with_name("ray_service_schema.json")
NEEDED = {"bundle": "/here", "image": "registry.example/tandem:1", "claim": "models"}


def rendered(**given: Any) -> list[Any]:
    config = RayServiceConfig(**{**NEEDED, "threads": 4, **given})
    return list(yaml.safe_load_all(to_yaml(ray_service(config, DIGEST))))


def closed(schema: Any) -> Any:
    """The schema with unknown names refused, where Kubernetes would drop them without a word."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {name: closed(part) for name, part in schema.items()}
    names = isinstance(schema.get("properties"), dict)
    return {**parts, "additionalProperties": False} if names else parts


def check(manifest: Any) -> None:
    jsonschema.validate(manifest, closed(json.loads(SCHEMA.read_text())))


@pytest.mark.parametrize("given", [{}, {"device": "cuda", "tower": "torch", "replicas": 2}])
def test_kuberay_takes_the_manifest(given: dict[str, Any]) -> None:
    service, _ = rendered(hosts=2, **given)
    check(service)


def test_the_schema_finds_a_name_and_a_type_that_are_wrong() -> None:
    service, _ = rendered()
    service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["replicas"] = "1"
    with pytest.raises(jsonschema.ValidationError):
        check(service)
    service, _ = rendered()
    service["spec"]["serveConfig"] = ""
    with pytest.raises(jsonschema.ValidationError):
        check(service)


def parts(service: Any) -> tuple[Any, Any, Any]:
    [group] = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    worker, front = group["template"]["spec"]["containers"]
    return group, worker, front


def test_the_application_is_the_one_that_the_fronts_look_for() -> None:
    service, _ = rendered(replicas=2, hosts=2, wire_dtype="int8", max_image_mib=4.0)
    written = yaml.safe_load(service["spec"]["serveConfigV2"])
    ServeDeploySchema.model_validate(written)
    _, _, front = parts(service)
    assert front["command"] == ["tandem", "serve", "vision", FOLDER]
    flags = [f"--bundle={FOLDER}", *front["args"]]
    config = settings.load(VisionConfig, program="", prefix="VISION", argv=flags, environ={})
    assert serve_config(config, DIGEST) == written
    assert (config.ray_address, config.wire_dtype) == ("auto", "int8")


def test_a_worker_has_room_for_its_replicas_and_its_front_meets_the_node() -> None:
    service, _ = rendered(replicas=4, replicas_per_host=2, hosts=2, device="cuda", tower="torch")
    group, worker, front = parts(service)
    assert (group["replicas"], group["maxReplicas"]) == (2, 2)
    limits = worker["resources"]["limits"]
    assert (limits["cpu"], limits["nvidia.com/gpu"]) == ("8", "2")
    assert worker["volumeMounts"] == front["volumeMounts"]
    assert group["template"]["spec"]["shareProcessNamespace"] is True


def test_gateways_find_the_fronts_by_one_name() -> None:
    service, fronts = rendered(service_name="eyes")
    group, _, front = parts(service)
    assert fronts["metadata"]["name"] == "eyes"
    assert fronts["spec"]["clusterIP"] == "None"
    assert fronts["spec"]["selector"] == group["template"]["metadata"]["labels"]
    assert fronts["spec"]["ports"][0]["port"] == VISION_PORT == front["ports"][0]["containerPort"]


def test_every_part_of_the_cluster_has_the_same_token() -> None:
    service, _ = rendered(token_secret="theirs")
    assert service["spec"]["rayClusterConfig"]["authOptions"]["secretName"] == "theirs"
    _, _, front = parts(service)
    token = front["env"][1]["valueFrom"]["secretKeyRef"]
    assert token == {"name": "theirs", "key": "auth_token"}


def test_more_replicas_than_the_hosts_hold_are_refused() -> None:
    with pytest.raises(SettingError, match="hosts"):
        rendered(replicas=3, hosts=2)
