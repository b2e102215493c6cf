"""How many replicas Serve is asked for."""

from vision_service.config import VisionConfig
from vision_service.replicas.scaling import deployment_options


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
