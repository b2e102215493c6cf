"""A load on a real gateway between fake tiers: its usage, images, videos and refusals."""

from pathlib import Path

from deploy.load import run as running
from deploy.load.client import LoadClient
from deploy.load.plan import LoadPlan, sizes_of
from deploy.load.run import Outcome
from protos.wire.errors import Overloaded
from tests.support.bundles import checkpoint
from tests.support.prompts import processor_bundle
from tests.unit.deploy.load.test_client import NOTES
from tests.unit.gateway.stage import staged


async def asked(plan: LoadPlan) -> Outcome:
    return await running._run(NOTES, plan, LoadClient(plan.url))


async def test_a_gateway_is_measured_by_its_own_usage(tmp_path: Path) -> None:
    bundle = processor_bundle(
        checkpoint("tied"), tmp_path / "bundle", manifest_changes={"model_id": "test"}
    )
    async with staged(bundle) as stage:
        tokens = len(stage.will_say("Hi there"))
        plan = LoadPlan(
            url=f"http://127.0.0.1:{stage.gateway.http_port}/v1",
            sizes=sizes_of("64x64,128x64"),
            video_frames=2,
            requests=4,
            concurrency=2,
        )
        found = (await asked(plan)).figures
        assert (found.model, found.answered, found.errors) == ("test", 4, {})
        # The token that ends an answer is counted as well, and is no text.
        assert (found.tokens_counted_by, found.completion_tokens) == ("usage", 4 * (tokens + 1))
        assert found.prompt_tokens is not None and found.prompt_tokens > 4 * 10
        # An image and a video of each request, none of which is another's.
        images = [request.image for request in stage.vision.requests if request.image]
        videos = [request.video for request in stage.vision.requests if request.HasField("video")]
        assert (len(images), len(videos)) == (5, 5)  # with the warm-up's
        assert len({*images, *(video.SerializeToString() for video in videos)}) == 10
        stage.decoder.failure = Overloaded("full")
        found = (await asked(LoadPlan(url=plan.url, sizes=(), warm_ups=0, requests=3))).figures
        assert (found.answered, found.errors) == (0, {"HTTP 429": 3})
