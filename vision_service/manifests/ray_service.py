"""The tier as a KubeRay `RayService`: a head, and workers that each hold a Ray node and a front.

A front is a container beside the worker's. It finds the Ray node by its process and talks to it
through a socket and shared memory, so the pod shares processes, `/tmp/ray` and `/dev/shm`.
Source: the RayService CRD of KubeRay 1.7, checked in tests/unit/vision_service/manifests.
"""

import dataclasses
from dataclasses import dataclass
from math import ceil
from typing import Any

import ray

from protos.process.settings import SettingError, setting
from protos.wire.channels import VISION_PORT
from vision_service import places
from vision_service.config import VisionConfig
from vision_service.manifests.application import given
from vision_service.manifests.serve_config import serve_config
from vision_service.manifests.text import to_yaml

GROUP = "vision"
FOLDER = "/bundle"

_NODE_HEALTH = {"httpGet": {"path": "/api/healthz", "port": 52365}}
_TOKEN_KEY = "auth_token"
_MOUNTS = [
    {"name": "ray", "mountPath": "/tmp/ray"},
    {"name": "memory", "mountPath": "/dev/shm"},
    {"name": "bundle", "mountPath": FOLDER, "readOnly": True},
]
# What says where a front is, which its pod does.
_OF_A_POD = {"bundle", "host", "port", "ray_address", "ray_node_ip"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RayServiceConfig(VisionConfig):
    """The fronts' settings, and what Kubernetes must know."""

    image: str = setting("container image with tandem-vlm[vision] in it")
    claim: str = setting("PersistentVolumeClaim with the bundle, readable on every node")
    service_name: str = setting("name of the RayService", default="tandem-vision")
    token_secret: str = setting(
        f"Secret whose key {_TOKEN_KEY} is the cluster's token", default="tandem-ray-token"
    )
    hosts: int = setting("worker pods", default=1, least=1)
    memory: str = setting("memory of a worker pod, shared memory included", default="8Gi")

    def of_fronts(self) -> VisionConfig:
        """The settings of the fronts in the pods."""
        names = [field.name for field in dataclasses.fields(VisionConfig)]
        return VisionConfig(**{**{name: getattr(self, name) for name in names}, "bundle": FOLDER})


def ray_service(config: RayServiceConfig, digest: str) -> list[dict[str, Any]]:
    """The manifests: a RayService, and a headless Service of the fronts.

    Args:
        config: What to render.
        digest: The bundle's.

    Raises:
        SettingError: `threads` is not set, or the hosts hold fewer replicas than there may be.
    """
    per_host = config.replicas_per_host or 1
    if config.hosts * per_host < config.most_replicas:
        raise SettingError(
            f"hosts is {config.hosts} with {per_host} replicas each, expected room for"
            f" {config.most_replicas}: raise hosts or replicas_per_host"
        )
    labels = {"app.kubernetes.io/name": config.service_name}
    return [
        {
            "apiVersion": "ray.io/v1",
            "kind": "RayService",
            "metadata": {"name": config.service_name},
            "spec": {
                # No proxy runs on the head, which KubeRay would otherwise ask for one.
                "excludeHeadPodFromServeSvc": True,
                "serveConfigV2": to_yaml([serve_config(config.of_fronts(), digest)]),
                "rayClusterConfig": _cluster(config, labels, per_host),
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": config.service_name},
            "spec": {
                "clusterIP": "None",  # gateways balance over every record of the name
                "selector": labels,
                "ports": [{"name": "grpc", "port": VISION_PORT}],
            },
        },
    ]


def _cluster(config: RayServiceConfig, labels: dict[str, str], per_host: int) -> dict[str, Any]:
    gpus = ceil(config.gpus * per_host)  # Kubernetes gives whole ones
    resources: dict[str, Any] = {
        "cpu": str((config.threads or 1) * per_host),
        "memory": config.memory,
        **({"nvidia.com/gpu": str(gpus)} if gpus else {}),
    }
    return {
        "rayVersion": ray.__version__,
        "authOptions": {"mode": "token", "secretName": config.token_secret},
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0"},  # nothing but Ray's own runs there
            "template": {
                "spec": {"containers": [{"name": "ray-head", "image": config.image}]},
            },
        },
        "workerGroupSpecs": [
            {
                "groupName": GROUP,
                "replicas": config.hosts,
                "minReplicas": config.hosts,
                "maxReplicas": config.hosts,
                "rayStartParams": {},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": _worker(config, resources),
                },
            }
        ],
    }


def _worker(config: RayServiceConfig, resources: dict[str, Any]) -> dict[str, Any]:
    return {
        "shareProcessNamespace": True,
        "containers": [
            {
                "name": "ray-worker",
                "image": config.image,
                "env": [{"name": places.VARIABLE, "value": FOLDER}],
                "resources": {"requests": resources, "limits": resources},
                # KubeRay's own asks for a proxy of Serve's, and there is none.
                "readinessProbe": _NODE_HEALTH,
                "volumeMounts": _MOUNTS,
            },
            _front(config),
        ],
        "volumes": [
            {"name": "ray", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": config.memory}},
            {"name": "bundle", "persistentVolumeClaim": {"claimName": config.claim}},
        ],
    }


def _front(config: RayServiceConfig) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(VisionConfig)}
    settings = given(config.of_fronts(), names=names - _OF_A_POD)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    token = {"name": config.token_secret, "key": _TOKEN_KEY}
    return {
        "name": "front",
        "image": config.image,
        "command": ["tandem", "serve", "vision", FOLDER],
        "args": ["--ray-address=auto", "--host=0.0.0.0", *flags],
        "env": [
            {"name": "RAY_AUTH_MODE", "value": "token"},
            {"name": "RAY_AUTH_TOKEN", "valueFrom": {"secretKeyRef": token}},
        ],
        "ports": [{"name": "grpc", "containerPort": VISION_PORT}],
        "readinessProbe": {"grpc": {"port": VISION_PORT}},
        "volumeMounts": _MOUNTS,
    }
