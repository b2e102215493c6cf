"""Settings of the vision process."""

import pytest

from protos.process import settings
from protos.process.settings import SettingError
from vision_service.config import VisionConfig
from vision_service.replicas.replica import ReplicaSettings


def config(*flags: str) -> VisionConfig:
    return settings.load(
        VisionConfig,
        program="vision_service",
        prefix="VISION",
        argv=["--bundle", "somewhere", *flags],
        environ={},
    )


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("--replicas=0", "replicas"),
        ("--threads=0", "threads"),
        ("--device=tpu", "device"),
        ("--dtype=int8", "dtype"),
        ("--max-queued-patches=-1", "max_queued_patches"),
        ("--encode-timeout-s=0", "encode_timeout_s"),
        ("--object-store-mib=10", "object_store_mib"),
        ("--max-image-pixels=1000000000", "max_image_pixels"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(flag: str, name: str) -> None:
    with pytest.raises(SettingError, match=name):
        config(flag)


def test_fewer_replicas_at_most_than_at_least_are_refused() -> None:
    with pytest.raises(SettingError, match="max_replicas"):
        config("--replicas=3", "--max-replicas=2")


@pytest.mark.parametrize(
    ("flags", "threads"),
    [
        ([], 8),
        (["--replicas=3"], 2),
        (["--replicas=2", "--max-replicas=4"], 2),
        (["--replicas=16"], 1),
        (["--replicas=2", "--threads=5"], 5),
        (["--replicas=4", "--replicas-per-host=1"], 8),
        (["--replicas=4", "--replicas-per-host=2"], 4),
    ],
)
def test_replicas_share_the_cores_unless_told_otherwise(flags: list[str], threads: int) -> None:
    assert config(*flags).replica_threads(8) == threads


def test_a_replica_gets_every_setting_it_needs() -> None:
    needed = ReplicaSettings(**config("--max-image-mib=0.5").replica_settings(cores=4))
    assert needed.max_image_bytes == 512 * 1024
    assert needed.threads == 4
    assert needed.bundle.endswith("/somewhere")


@pytest.mark.parametrize("flags", [("--dtype=bfloat16",), ("--device=cuda",)])
def test_a_tower_in_onnx_is_refused_where_it_could_not_compute(flags: tuple[str, ...]) -> None:
    with pytest.raises(SettingError, match="tower is 'exact'"):
        config("--tower=exact", *flags)
    assert config("--tower=torch", *flags).tower == "torch"


@pytest.mark.parametrize("labels", ["pool", "pool=", "=vision", "a=b,c"])
def test_labels_that_are_not_pairs_are_refused(labels: str) -> None:
    with pytest.raises(SettingError, match="host_labels"):
        config(f"--host-labels={labels}")


@pytest.mark.parametrize(
    ("flags", "gpus"),
    [
        ((), 0),
        (("--gpus-per-replica=0.5",), 0),
        (("--device=cuda",), 1),
        (("--device=cuda", "--gpus-per-replica=0.5"), 0.5),
    ],
)
def test_a_replica_takes_a_gpu_or_what_it_is_told_of_one(
    flags: tuple[str, ...], gpus: float
) -> None:
    assert config(*flags).gpus == gpus
