"""Images that end replicas."""

import pytest

from protos.wire.errors import InvalidRequest, Reason
from vision_service.jobs import EncodedImage, EncodeJob
from vision_service.routing.fatal import FatalImages


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def job(data: bytes) -> EncodeJob:
    return EncodeJob(source=EncodedImage(data=data))


BAD, GOOD = job(b"bad"), job(b"good")


def test_an_image_that_ends_two_replicas_is_refused_for_a_while() -> None:
    clock = Clock()
    images = FatalImages(clock)
    for replica in ("a", "b"):
        images.check(BAD)
        images.died(BAD, replica)
    with pytest.raises(InvalidRequest) as caught:
        images.check(job(b"bad"))
    assert (caught.value.reason, caught.value.param) == (Reason.INVALID_IMAGE, "image")
    images.check(GOOD)
    clock.now_s = 601.0
    images.check(BAD)


def test_many_calls_for_an_image_in_one_replica_are_one_death() -> None:
    images = FatalImages(Clock())
    for _ in range(3):
        images.died(BAD, "a")
    images.check(BAD)


def test_an_image_that_was_encoded_since_is_innocent() -> None:
    images = FatalImages(Clock())
    images.died(GOOD, "a")
    images.survived(GOOD)
    images.died(GOOD, "b")
    images.check(GOOD)
