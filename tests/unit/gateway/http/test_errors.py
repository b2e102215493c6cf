"""Which errors OpenAI's own client sends again, and which it does not."""

from typing import Any

import httpx
import openai
import pytest

from gateway.http.errors import error_response
from protos.wire.errors import Reason, error_for

# Another try may meet a free place, a tier that is back, or the end of a fault.
MENDED_BY_WAITING = {
    Reason.QUEUE_FULL,
    Reason.RATE_LIMIT_EXCEEDED,
    Reason.REQUEST_ID_IN_USE,  # until the other request of that id has ended
    Reason.LOADING,
    Reason.DRAINING,
    Reason.VISION_UNAVAILABLE,
    Reason.DECODER_UNAVAILABLE,
    Reason.MODEL_MISMATCH,  # the tiers of a stack that is being updated agree in the end
    Reason.DEADLINE_EXCEEDED,
    Reason.MEDIA_FETCH_TIMEOUT,  # the media's server may be less busy then
    Reason.DATA_LOSS,
    Reason.INTERNAL,
    Reason.INVALID_TOKEN,  # between services alone, whose token is being changed
}


@pytest.mark.parametrize("reason", sorted(Reason))
def test_the_client_sends_again_what_waiting_may_mend_and_nothing_else(reason: Reason) -> None:
    answer = error_response(error_for(reason, "field x is 3, expected 4"))
    # The client's own decision; it has no public name.
    client: Any = openai.OpenAI(base_url="http://127.0.0.1:9", api_key="none")
    response = httpx.Response(answer.status_code, headers=dict(answer.headers))
    assert client._should_retry(response) is (reason in MENDED_BY_WAITING)
