"""Calls from a thread to the event loop."""

import asyncio

from decoder_service.engine.notifier import Postman


async def test_calls_arrive_in_order_and_all_of_them_before_it_has_stopped() -> None:
    postman, arrived = Postman(), list[int]()
    postman.start(asyncio.get_running_loop())
    for number in range(100):
        postman.call(lambda number=number: arrived.append(number))  # type: ignore[misc]
    await asyncio.to_thread(postman.stop)
    await asyncio.sleep(0)  # what is with the loop runs in its next turn
    assert arrived == list(range(100))


def test_calls_to_a_closed_loop_are_dropped() -> None:
    postman, loop = Postman(), asyncio.new_event_loop()
    loop.close()
    postman.start(loop)
    postman.call(lambda: None)
    postman.stop()
