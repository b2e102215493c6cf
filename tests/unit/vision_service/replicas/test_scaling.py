"""How many replicas Serve is asked for."""

import json

from vision_service.config import VisionConfig
from vision_service.replicas.scaling import deployment_options
from vision_service.scaling.policy import Aims


def test_the_number_of_replicas_is_fixed_unless_there_is_a_maximum() -> None:
    options = deployment_options(VisionConfig(bundle="x", replicas=3))
    assert options["num_replicas"] == 3
    assert "autoscaling_config" not in options


def test_a_maximum_lets_serve_choose_between_both_numbers() -> None:
    options = deployment_options(VisionConfig(bundle="x", replicas=2, max_replicas=5))
    scaling = options["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (2, 5)
    assert "num_replicas" not in options


def test_a_replica_takes_a_gpu_only_on_cuda() -> None:
    for device, gpus in (("cpu", 0), ("cuda", 1)):
        options = deployment_options(VisionConfig(bundle="x", device=device))
        assert options["ray_actor_options"] == {"num_cpus": 0, "num_gpus": gpus}


def test_what_serve_is_told_can_be_written_into_a_file() -> None:
    options = deployment_options(VisionConfig(bundle="x", replicas=0, max_replicas=5))
    assert json.loads(json.dumps(options)) == options
    assert Aims(**options["autoscaling_config"]["policy"]["policy_kwargs"]).most == 5


def test_a_replica_that_is_to_go_has_the_time_of_the_longest_call() -> None:
    options = deployment_options(VisionConfig(bundle="x", encode_timeout_s=123.0))
    assert options["graceful_shutdown_timeout_s"] == 123.0


def test_images_wait_in_front_only_where_there_may_be_several_replicas() -> None:
    def ahead_s(**counts: int) -> float:
        options = deployment_options(VisionConfig(bundle="x", **counts))  # type: ignore[arg-type]
        return float(options["request_router_config"]["request_router_kwargs"]["ahead_s"])

    assert ahead_s() > 1e6
    assert ahead_s(replicas=2) == ahead_s(max_replicas=2) == 1.0


def test_a_tier_that_may_be_gone_is_waited_for() -> None:
    assert VisionConfig(bundle="x").longest_tier_wait_s == 0.5
    assert VisionConfig(bundle="x", replicas=0, max_replicas=1).longest_tier_wait_s == 60.0
    assert VisionConfig(bundle="x", tier_wait_s=0.0).longest_tier_wait_s == 0.0
