"""Who gives up first: the gateway, which knows what a request is about and can say so."""

from decoder_service.config import DecoderConfig
from gateway.config import GatewayConfig
from protos.media.limits import MAX_IMAGE_TOKENS
from vision_service.config import VisionConfig

GATEWAY = GatewayConfig(bundle="b")
PATCHES_PER_TOKEN = 4


def test_the_largest_image_may_take_its_time_within_every_tiers_patience() -> None:
    patches = MAX_IMAGE_TOKENS * PATCHES_PER_TOKEN
    planned_s = GATEWAY.encode_deadline_s + patches / GATEWAY.encode_patches_per_s
    assert planned_s < GATEWAY.request_deadline_s
    assert planned_s < VisionConfig(bundle="b").encode_timeout_s
    assert planned_s < DecoderConfig(bundle="b").features_timeout_s


def test_the_decoder_waits_for_features_longer_than_the_gateway_for_a_first_token() -> None:
    assert DecoderConfig(bundle="b").features_timeout_s > GATEWAY.request_deadline_s
