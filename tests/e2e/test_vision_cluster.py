"""Several fronts on one Ray cluster, whose hosts are loopback addresses, one without the bundle."""

import io
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.e2e.ray_cluster import ENVIRONMENT, RayCluster
from tests.e2e.vision_process import VisionProcess
from tests.support import bundles
from tests.support.waiting import wait_until

FIRST, SECOND, LACKING = "127.0.0.2", "127.0.0.3", "127.0.0.4"
INLINE_BYTES = 100 * 1024  # larger results cross nodes by their object stores


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A cluster with two fronts; the far one is on the host that has no replica."""

    cluster: RayCluster
    near: VisionProcess
    far: VisionProcess
    lacking: Path


@pytest.fixture(scope="module")
def tier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tier]:
    folder = tmp_path_factory.mktemp("cluster")
    bundle = bundles.bundle("tied")
    shutil.copytree(bundle, folder / "several" / "one")
    lacking = folder / "lacking"
    lacking.mkdir()
    hosts = {FIRST: bundle, SECOND: folder / "several", LACKING: lacking}
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        cluster = stack.enter_context(RayCluster(hosts))
        fronts = [
            VisionProcess(
                bundle,
                folder / f"{host}.log",
                f"--ray-address={cluster.address}",
                f"--ray-node-ip={host}",
                "--replicas=2",
                "--threads=1",
                "--tower=exact",
            )
            for host in (FIRST, LACKING)
        ]
        near, far = [stack.enter_context(front) for front in fronts]
        yield Tier(cluster=cluster, near=near, far=far, lacking=lacking)


def image(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_fronts_share_replicas_that_are_spread_over_hosts_with_the_bundle(tier: Tier) -> None:
    wait_until(lambda: len(tier.cluster.replicas()) == 2, what="both replicas")
    assert sorted(tier.cluster.replicas().values()) == [FIRST, SECOND]


def test_a_host_without_the_bundle_is_named(tier: Tier) -> None:
    for front in (tier.near, tier.far):
        assert f"({LACKING}) gets no replica: no bundle of digest" in front.log.read_text()


def test_large_images_and_features_cross_hosts_unchanged(tier: Tier) -> None:
    for seed in range(3):
        data = image(seed)
        near, far = tier.near.image(data), tier.far.image(data)
        assert min(len(data), near.features.nbytes) > INLINE_BYTES
        assert near.grid == far.grid
        assert np.array_equal(near.features, far.features)


def test_a_host_is_let_in_once_it_has_the_bundle(tier: Tier) -> None:
    shutil.copytree(bundles.bundle("tied"), tier.lacking / "copied")
    wait_until(
        lambda: any(
            f"({LACKING}) has the bundle now" in front.log.read_text()
            for front in (tier.near, tier.far)
        ),
        what="the host to be let in",
    )


def test_replicas_outlive_a_front_and_end_with_the_last_one(tier: Tier) -> None:
    before = tier.cluster.replicas()
    tier.near.signal(signal.SIGKILL)
    tier.near.process.wait(30)
    assert tier.far.image(image(0)).features.any()
    assert tier.cluster.replicas() == before
    tier.far.signal(signal.SIGTERM)
    assert tier.far.process.wait(40) == 0
    wait_until(lambda: not tier.cluster.replicas(), what="the replicas to end")
