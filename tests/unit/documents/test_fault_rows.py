"""Bad input and faults at the gateway and on the wire, and the tests that hold what must happen.

Every case must leave a running canary, all processes and later good requests alone, answer in the
form of its API without a trace of this machine, and free what it held. Whole services under kills,
stops and bad links are `tests/chaos`; that memory, descriptors and threads stay flat over hours is
measured, not tested. What takes thousands of requests is tried at its limit by `make faults`
(`tests/faults`), of which `AT_LIMIT` names the functions.
"""

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
CHAT = "unit/gateway/http/chat/test_errors.py::"
GUARD = "unit/gateway/http/test_guard.py::"
IMAGES = "unit/gateway/media/test_images.py::"
FETCH = "unit/gateway/media/test_fetch.py::"
LIMITS = "unit/gateway/prompt/test_limits.py::"
DOORS = "unit/gateway/test_faults_at_the_doors.py::"
TIERS = "unit/gateway/tiers/test_tier_failures.py::"
COMPILER = "unit/decoder_service/grammar/test_compiler.py::"
FEATURES = "unit/decoder_service/rpc/test_features.py::"
ENGINE = "unit/decoder_service/engine/test_engine_failures.py::"
STACK = "e2e/test_stack_faults.py::"
BAD = CHAT + "test_bad_requests_are_refused_by_name"
MALFORMED = (
    "e2e/test_decoder_service.py::test_malformed_requests_are_refused_by_name_and_disturb_no_stream"
)
GONE = "unit/gateway/tiers/test_tier_failures.py::test_a_client_that_leaves_"
AT_LIMIT = "faults/"
CHAOS = "chaos/test_faults.py::test_every_request_is_answered_as_if_nothing_had_happened"

ROWS: dict[str, list[str]] = {
    "F01 body is no JSON or cut": [
        CHAT + "test_a_body_that_is_no_json_object_is_refused",
        "unit/gateway/http/bodies/test_body.py::test_a_string_that_never_ends_is_refused_at_once",
    ],
    "F03 wrong Content-Type": [CHAT + "test_another_content_type_is_refused"],
    "F05 body above the limit": [
        GUARD + "test_a_body_that_is_too_large_is_refused_before_it_is_sent",
        GUARD + "test_a_body_without_length_is_refused_when_it_grows_too_large",
    ],
    "F07 headers or body that trickle": [
        GUARD + "test_headers_that_trickle_are_cut_off",
        GUARD + "test_a_body_that_trickles_is_cut_off",
        GUARD + "test_others_are_served_while_slow_clients_wait",
    ],
    "F08 too many headers": [
        GUARD + "test_headers_that_are_too_large_are_refused",
        GUARD + "test_endless_headers_are_cut_off",
    ],
    "F10 unknown model": [
        BAD,
        "unit/gateway/http/test_api_errors.py::test_another_model_is_not_found",
    ],
    "F11 no messages, or nothing in them": [BAD],
    "F13 key missing or wrong on every route": [
        GUARD + "test_every_route_wants_the_key_but_health",
        "unit/gateway/access/test_auth.py::test_only_a_right_key_passes",
        "unit/gateway/rpc/test_access.py::test_the_key_is_wanted_here_too",
    ],
    "F15 foreign Origin or Host": [
        GUARD + "test_foreign_hosts_are_refused_on_loopback",
        GUARD + "test_no_cors_headers_are_sent",
        "unit/gateway/http/test_cors.py::test_a_foreign_page_cannot_ask_without_being_asked",
    ],
    "F17 numbers out of range": [BAD],
    "F18 countless answers and log-probabilities": [BAD],
    "F21 prompt longer than the context": [
        CHAT + "test_clients_know_that_the_context_is_full_and_by_which_field",
        LIMITS + "test_images_that_fill_the_window_are_refused_before_text_is_tokenized",
        LIMITS + "test_text_that_cannot_fit_is_refused_before_it_is_tokenized",
    ],
    "F22 a mebibyte of anything": [
        LIMITS + "test_a_mebibyte_of_anything_takes_at_most_two_seconds",
        "unit/gateway/test_threads.py::test_a_short_chat_does_not_wait_for_eight_long_ones",
    ],
    "F23 special tokens in text": [
        "e2e/test_stack_bad_input.py::test_special_tokens_in_text_are_text",
        "unit/gateway/prompt/test_history.py::test_nobody_else_can_write_the_models_tokens",
    ],
    "F25 a form without a schema": [
        "unit/gateway/http/chat/test_structured_output.py::"
        "test_forms_that_make_no_sense_are_refused_by_name"
    ],
    "F26 schemas beyond reason": [
        "e2e/test_stack_structured.py::test_schemas_beyond_reason_are_refused_soon",
        "e2e/test_stack_structured.py::test_a_schema_that_compiles_too_long_holds_up_nobody",
        COMPILER + "test_a_grammar_that_takes_too_long_or_too_much_ends_its_helper_only",
    ],
    "F28 countless unique schemas": [
        COMPILER + "test_the_cache_holds_no_more_than_its_bytes",
        AT_LIMIT + "schemas.py::try_schemas",
    ],
    "F29 a thousand tools, bad names": [
        BAD,
        LIMITS + "test_tools_are_bounded_in_number_depth_and_size",
    ],
    "F30 fields that change the server": [
        CHAT + "test_fields_that_change_the_server_are_not_allowed"
    ],
    "F32 image_url in every form": [
        BAD,
        "unit/gateway/http/chat/test_route.py::test_a_bare_url_string_is_a_image_too",
    ],
    "F34 50 MB of base64": [
        GUARD + "test_a_body_that_is_too_large_is_refused_before_it_is_sent",
        IMAGES + "test_a_long_url_is_refused_by_its_length_before_it_is_decoded",
    ],
    "F35 images that claim too many pixels": [
        IMAGES + "test_bombs_are_refused_by_what_their_header_claims",
        "unit/vision_service/media/test_images.py::"
        "test_a_bomb_is_refused_by_its_pixel_count_without_being_decoded",
    ],
    "F37 cut and flipped images": [
        IMAGES + "test_truncated_and_flipped_headers_never_raise_anything_else",
        "unit/vision_service/replicas/test_fuzz.py::test_every_damaged_image_is_encoded_or_refused",
    ],
    "F38 other formats": [IMAGES + "test_other_formats_are_refused_by_their_first_bytes"],
    "F41 orientations": [
        IMAGES + "test_size_is_that_of_the_upright_image",
        "unit/vision_service/media/test_images.py::"
        "test_an_exif_orientation_gives_the_image_rotated_beforehand",
    ],
    "F44 one image, two keys": [
        "unit/gateway/test_prefix_cache.py::test_two_api_keys_share_nothing",
        "unit/gateway/tiers/test_embeddings.py::"
        "test_what_is_kept_is_not_encoded_again_but_for_another_tenant",
    ],
    "F45 too many images": [
        BAD,
        "unit/gateway/test_fetched_media.py::"
        "test_too_many_images_are_refused_before_one_is_fetched",
    ],
    "F47 other URLs": [
        IMAGES + "test_every_other_url_is_refused_with_the_same_words",
        "unit/gateway/media/test_sources.py::test_other_urls_get_one_answer",
    ],
    "F48 URLs of this machine and its network": [
        FETCH + "test_no_spelling_of_loopback_is_dialled",
        "unit/gateway/media/test_networks.py::test_what_only_the_server_can_reach_is_not_public",
    ],
    "F50 a name that changes its address": [
        FETCH + "test_a_name_is_looked_up_once_and_that_answer_dialled"
    ],
    "F51 bad servers of media": [
        FETCH + "test_what_a_bad_server_sends_is_no_file",
        FETCH + "test_a_slow_server_costs_its_time_and_no_more",
        FETCH + "test_so_many_at_once",
    ],
    "F54 parts of other types": [BAD],
    "F55 videos beyond reason": [
        "unit/gateway/test_videos.py::test_what_is_too_much_is_refused_before_a_tier_is_asked",
        "unit/gateway/http/chat/test_videos.py::test_what_cannot_be_meant_is_refused_by_name",
        "unit/vision_service/test_video_requests.py::test_sampling_out_of_range_is_refused_by_field",
    ],
    "F55 PDFs beyond reason": [
        "e2e/test_stack_pdfs.py::test_a_bad_pdf_is_refused_by_its_place",
        "e2e/test_stack_pdfs.py::test_pages_beyond_the_limit_are_counted_and_none_is_left_out",
        "unit/gateway/test_pdfs.py::test_what_is_too_much_is_refused_by_its_place_and_limit",
        "unit/vision_service/pdfs/test_boxed.py::"
        "test_a_file_that_ends_two_workers_is_refused_by_its_digest_and_others_are_read",
        "unit/vision_service/pdfs/test_boxed.py::"
        "test_mutated_files_are_read_or_refused_and_their_readers_live",
    ],
    "F56 gRPC messages above the limit": [
        DOORS + "test_a_message_above_the_limit_is_refused_by_the_core"
    ],
    "F57 grids that do not fit": [
        "unit/vision_service/test_servicer.py::"
        "test_a_claimed_shape_is_refused_before_anything_is_allocated",
        "unit/vision_service/test_servicer.py::test_a_malformed_request_is_refused_by_field",
    ],
    "F59 spans that do not fit": [
        MALFORMED,
        "e2e/test_stack_bad_input.py::test_a_malformed_prompt_is_refused_by_the_decoder",
    ],
    "F61 features that are not finite": [
        "contract/test_tensors.py::test_values_that_are_not_finite_are_refused",
        ENGINE + "test_features_that_overflow_fail_their_sequence_alone",
    ],
    "F63 chunks missing, twice, out of place, damaged, late": [
        FEATURES + "test_pieces_out_of_place_are_refused",
        FEATURES + "test_the_error_of_an_early_end_counts_rows",
        "unit/protos/wire/test_features.py::test_damage_on_the_way_is_noticed",
        "e2e/test_decoder_service.py::test_features_that_stall_end_the_call",
    ],
    "F64 a tier of another model": [
        TIERS + "test_a_vision_tier_with_another_bundle_is_refused_for_images_only",
        TIERS + "test_a_tier_with_another_bundle_is_refused",
    ],
    "F66 random messages, unknown methods": [
        DOORS + "test_random_messages_are_refused_and_the_door_lives",
        "e2e/test_decoder_service.py::test_random_bytes_are_refused_and_the_process_lives",
        "unit/protos/process/test_malformed.py::test_what_cannot_be_parsed_is_an_invalid_argument",
        AT_LIMIT + "messages.py::try_messages",
    ],
    "F68 huge metadata, many connections, a flood of pings": [
        DOORS + "test_metadata_beyond_reason_are_refused_by_the_core",
        DOORS + "test_hundreds_of_idle_connections_keep_nobody_waiting",
        DOORS + "test_a_flood_of_pings_ends_its_connection_alone",
        AT_LIMIT + "connections.py::try_connections",
    ],
    "F69 an encoder is killed": [
        "e2e/test_vision_service.py::test_a_replica_killed_while_it_encodes_costs_no_answer",
        TIERS + "test_an_encoding_is_retried_only_once",
    ],
    "F70 all encoders are killed": [
        STACK + "test_text_is_answered_while_vision_is_dead_and_images_get_a_clear_error",
        TIERS + "test_a_vision_tier_that_comes_back_is_used_again",
    ],
    "F72 wrong or missing features": [
        TIERS + "test_an_incomplete_encoding_never_becomes_an_answer"
    ],
    "F73 the decoder is killed midway": [
        STACK + "test_a_stream_that_is_not_waited_for_ends_with_an_error_event",
        TIERS + "test_a_decoder_that_dies_midway_ends_the_stream_with_an_error",
    ],
    "F77 one sequence fails": [ENGINE + "test_a_row_that_cannot_be_sampled_fails_alone"],
    "F79 a full disk, folders that may only be read": [
        "e2e/test_full_disks.py::test_without_room_for_logs_and_folders_to_write_in_answers_go_on",
        "unit/deploy/stack/test_log_file.py::"
        "test_a_tier_goes_on_without_its_log_and_one_warning_is_given",
    ],
    "F80 bad links between tiers": [
        CHAOS,
        "unit/gateway/tiers/test_fleet.py::"
        "test_a_call_without_a_first_message_is_over_soon_and_its_address_set_aside",
    ],
    "F81 names and addresses that change": [
        "unit/gateway/fleet/test_discovery.py::test_a_name_that_vanishes_keeps_its_addresses",
        "unit/gateway/tiers/test_fleet.py::"
        "test_an_address_that_joined_is_looked_at_before_it_is_called",
    ],
    "F82 clients that leave": [
        GONE + "before_the_first_token_cancels_everything",
        GONE + "midway_cancels_the_decoder",
        GUARD + "test_a_client_that_reads_nothing_loses_its_stream",
        "unit/gateway/test_service.py::test_a_client_that_leaves_is_noted",
    ],
    "F84 deadlines short, over, absent, endless": [
        DOORS + "test_deadlines_are_kept_whatever_they_are",
        "unit/gateway/request/test_deadlines.py::test_a_clients_deadline_only_shortens_ours",
        AT_LIMIT + "deadlines.py::try_deadlines",
    ],
    "F85 SIGTERM at any time": [
        "e2e/test_gateway_process.py::test_a_running_stream_is_finished_before_it_stops",
        "e2e/test_gateway_process.py::test_draining_ends_after_its_time",
        "unit/gateway/test_leaving.py::test_a_leaving_gateway_answers_while_balancers_notice_it",
    ],
    "F87 a rolling restart": [CHAOS],
    "F88 starts in the wrong order or with wrong settings": [
        "e2e/test_gateway_process.py::"
        "test_it_starts_before_its_tiers_and_says_that_it_is_not_ready",
        "e2e/test_gateway_process.py::test_a_taken_port_ends_it_with_one_line",
        "e2e/test_gateway_process.py::test_a_damaged_bundle_ends_it_with_one_line",
        "e2e/test_gateway_process.py::test_a_tier_with_another_bundle_ends_it_with_one_line",
    ],
    "F89 far more than fits": [
        DOORS + "test_of_two_hundred_images_at_once_each_gets_its_answer",
        TIERS + "test_more_requests_than_fit_are_refused_at_once",
        AT_LIMIT + "overload.py::try_overload",
    ],
    "F92 no memory for more tokens": [
        "unit/decoder_service/schedule/test_scheduler.py::"
        "test_everyone_admitted_ends_and_no_budget_is_passed"
    ],
    "F97 a storm of scrapes, labels from clients": [
        DOORS + "test_a_storm_of_scrapes_with_odd_names_adds_no_series",
        "unit/protos/process/test_metrics.py::test_what_a_client_says_is_no_label",
        AT_LIMIT + "scrapes.py::try_scrapes",
    ],
    "F99 names that are paths, or huge": [
        BAD,
        DOORS + "test_a_name_of_a_mebibyte_is_no_model_and_no_file",
    ],
}


@cache
def names_in(path: str) -> frozenset[str]:
    """Names of a file's tests."""
    tree = ast.parse((TESTS / path).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in tree.body if isinstance(node, kinds))


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_held_by_tests_that_are_there(row: str) -> None:
    assert ROWS[row]
    for name in ROWS[row]:
        path, _, test = name.partition("::")
        assert test in names_in(path), name
