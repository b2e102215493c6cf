"""One application for fronts that agree, another for those that do not, and where replicas go."""

from typing import Any

import pytest

from vision_service.cluster.application import Application
from vision_service.config import VisionConfig
from vision_service.replicas.applications import (
    bundle_folders,
    placement,
    private_application,
    shared_application,
)

DIGEST = "5a" * 32


def shared(digest: str = DIGEST, cores: int = 8, **settings: Any) -> Application:
    return shared_application(VisionConfig(bundle="/b", **settings), digest, cores=cores)


def test_fronts_of_the_same_bundle_and_settings_have_one_application() -> None:
    assert shared(port=1, log_level="DEBUG").name == shared(port=2).name
    assert shared().name.startswith("vision-5a5a5a5a5a5a-")
    assert shared().version == shared().version


@pytest.mark.parametrize(
    "other",
    [{"digest": "6b" * 32}, {"tower": "exact"}, {"max_image_mib": 1.0}, {"max_queued_patches": 9}],
)
def test_another_bundle_or_what_replicas_do_is_another_application(other: dict[str, Any]) -> None:
    assert shared(**other).name != shared().name


@pytest.mark.parametrize("other", [{"replicas": 3}, {"threads": 5}, {"replicas_per_host": 2}])
def test_how_many_replicas_there_are_is_changed_in_place(other: dict[str, Any]) -> None:
    assert shared(**other).name == shared().name
    assert shared(**other).options != shared().options


def test_replicas_are_left_as_they_are_unless_their_own_settings_change() -> None:
    assert shared(replicas=3, threads=8).version == shared(threads=8).version
    assert shared(threads=5).version != shared(threads=8).version


def test_a_replica_on_a_cluster_reserves_its_threads_and_its_part_of_a_gpu() -> None:
    cpu = shared(threads=3).options["ray_actor_options"]
    assert (cpu["num_cpus"], cpu["num_gpus"]) == (3, 0)
    gpu = shared(threads=3, device="cuda", gpus_per_replica=0.25).options["ray_actor_options"]
    assert (gpu["num_cpus"], gpu["num_gpus"]) == (3, 0.25)


def test_a_private_ray_counts_no_cpus() -> None:
    options = private_application(VisionConfig(bundle="/b", threads=3), cores=8).options
    assert options["ray_actor_options"]["num_cpus"] == 0
    assert "max_replicas_per_node" not in options


def test_replicas_go_where_labels_and_room_are() -> None:
    config = VisionConfig(bundle="/b", threads=3, host_labels="pool=vision,zone=a")
    labels = {"pool": "vision", "zone": "a"}
    application = shared_application(config, DIGEST, cores=8)
    assert application.options["ray_actor_options"]["label_selector"] == labels
    place = placement(config, DIGEST, application)
    assert (place.needs, place.labels, place.digest) == ({"CPU": 3}, labels, DIGEST)


def test_hosts_are_limited_in_replicas_where_that_is_set_and_counted_always() -> None:
    assert shared().options["max_replicas_per_node"] == 100
    assert shared(replicas_per_host=2).options["max_replicas_per_node"] == 2


def test_hosts_look_where_the_front_has_it_and_where_it_says() -> None:
    config = VisionConfig(bundle="/b", bundle_folders="/models:/mnt/models")
    assert bundle_folders(config) == ["/b", "/models", "/mnt/models"]
