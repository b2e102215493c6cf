"""A gateway that is told to stop, and the balancer that finds out."""

import asyncio

from protos.bundle.manifest import Bundle
from tests.unit.gateway.stage import staged

NOTICE_S = 1.0


async def test_a_leaving_gateway_answers_while_balancers_notice_it(bundle: Bundle) -> None:
    async with staged(bundle, drain_notice_s=NOTICE_S) as stage:
        stage.will_say("yes")
        before = await stage.http.get("/health/ready")
        assert (before.status_code, before.headers.get("connection")) == (200, None)

        leaving = asyncio.create_task(stage.gateway.__aexit__(None, None, None))
        await asyncio.sleep(0)
        notice = await stage.http.get("/health/ready")
        assert (notice.status_code, notice.headers["connection"]) == (503, "close")
        answer = await stage.post(messages=[{"role": "user", "content": "Is it?"}])
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        await leaving
