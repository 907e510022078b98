"""Every attack on patches, manifests, signatures, models, the log and the database that was thought of, with its outcome.

A row has the attack, how it ends, and the test that shows it, wherever that stands. What no room of this program could
be attacked by is in the table, too, without a test; docs/threats.md gives the reason.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "threats.md").read_text()
THERE = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))

REFUSED, FOUND, PASS = "refused", "found", "pass"
HEADERS = "bad_headers_are_refused"
TENSORS = "bad_tensors_are_refused"
JSON = "bad_documents_are_refused_by_name"
MANIFEST = "a_manifest_is_refused_that_is"
BUNDLES = "bad_bundles_are_refused"
STATEMENTS = "bad_statements_are_refused_though_signed"
LINKS = "links_pipes_and_folders_in_place_of_files_are_refused_at_once"
LOADED = "what_is_loaded_are_the_bytes_that_were_read"
NOTES = "malformed_notes_are_refused"
CHECKPOINTS = "malformed_checkpoints_are_refused"
LOG = "an_attack_on_the_log_is_caught"
SCHEMA = "anything_foreign_or_missing_is_refused_before_anything_is_read"
ACTOR = "an_audit_finds_an_entry_that_who_acts_did_not_sign"
LEDGER = "the_ledger_only_grows_at_its_end"

ATTACKS: dict[str, list[tuple[str, str, str]]] = {
    "patch file": [
        ("an empty file", REFUSED, HEADERS),
        ("seven bytes", REFUSED, HEADERS),
        ("a header of no bytes", REFUSED, HEADERS),
        ("a header longer than the file", REFUSED, HEADERS),
        ("a header of 2^63 bytes", REFUSED, HEADERS),
        ("a header over the limit", REFUSED, "the_largest_header_allowed_and_one_byte_more"),
        ("a million tensors", REFUSED, "a_header_of_a_million_tensors_is_refused_before_it_is_read"),
        ("a header that is no UTF-8", REFUSED, HEADERS),
        ("a byte order mark", REFUSED, HEADERS),
        ("a space before the header", REFUSED, HEADERS),
        ("garbage behind the header", REFUSED, HEADERS),
        ("one tensor twice", REFUSED, HEADERS),
        ("one tensor twice, of two types", REFUSED, HEADERS),
        ("one key of the metadata twice", REFUSED, HEADERS),
        ("metadata that no patch has", REFUSED, "another_encoding_of_the_same_tensors_is_refused"),
        ("a field too many", REFUSED, HEADERS),
        ("tensors that overlap", REFUSED, HEADERS),
        ("two tensors of the same bytes", REFUSED, HEADERS),
        ("a hole between tensors", REFUSED, HEADERS),
        ("bytes behind the last tensor", REFUSED, HEADERS),
        ("cut data", REFUSED, HEADERS),
        ("a shape whose product overflows", REFUSED, HEADERS),
        ("a shape of 0 by 2^63", REFUSED, HEADERS),
        ("deep nesting", REFUSED, HEADERS),
        ("NaN in an increment", REFUSED, "numbers_that_are_not_finite_are_refused"),
        ("infinity in an increment", REFUSED, "numbers_that_are_not_finite_are_refused"),
        ("an increment that overflows the model's type", REFUSED, "overflow_of_the_dtype_is_refused"),
        ("zeros with a sign", PASS, "zeros_keep_their_signs"),
        ("a type that no patch has", REFUSED, TENSORS),
        ("another type than the manifest says", REFUSED, "tensor_files_are_refused_that_have"),
        ("a tensor that the base has not", REFUSED, "increments_of_other_parameters_than_the_base_are_refused"),
        ("another shape than the base's", REFUSED, "tensor_files_are_refused_that_have"),
        ("a tensor's name of dots, NUL or nothing", REFUSED, HEADERS),
        ("two names that look alike", REFUSED, HEADERS),
        ("a pickle with another name", REFUSED, "a_file_that_is_no_weights_is_refused_as_what_it_is"),
        ("a link, pipe, device or folder", REFUSED, LINKS),
        ("a file that grows while it is read", REFUSED, "a_file_longer_than_it_said_is_refused"),
        ("a file that is rewritten after it was verified", PASS, LOADED),
        ("a file that is exchanged after it was verified", PASS, LOADED),
        ("a weight file with a second name", REFUSED, "a_write_through_one_snapshot_would_change_the_other"),
    ],
    "manifest": [
        ("a key twice", REFUSED, JSON),
        ("a key twice, once escaped", REFUSED, JSON),
        ("NaN and infinity", REFUSED, JSON),
        ("1e999", REFUSED, JSON),
        ("a number of five thousand digits", REFUSED, JSON),
        ("an integer over 2^53", REFUSED, JSON),
        ("two hundred thousand brackets", REFUSED, JSON),
        ("half a character", REFUSED, JSON),
        ("another spelling of the same", REFUSED, "a_manifest_has_one_spelling_and_is_refused_as"),
        ("an unknown field", REFUSED, MANIFEST),
        ("an unknown version", REFUSED, "a_later_format_says_how_to_read_it"),
        ("a strength that is none", REFUSED, "odd_strengths_are_refused"),
        ("a strength off the grid or out of range", REFUSED, "strengths_off_the_grid_or_out_of_range_are_refused"),
        ("another base", REFUSED, "another_model_than_the_patch_was_made_for"),
        ("another text encoder", REFUSED, "another_text_encoder_than_the_patch_was_made_for"),
        ("the same weights in other shards", PASS, "shards_and_spelling_make_no_other_base"),
        ("another retain set", REFUSED, "a_changed_blob_is_no_retain_set"),
        ("another basis", REFUSED, "a_patch_is_refused_at_every_intake_that_claims"),
        ("text that turns a terminal around", PASS, "what_a_message_shows_is_escaped_and_short"),
        ("text that ends a line of another format", PASS, "cef_lines_read_back"),
        ("two gigabytes", REFUSED, "files_too_large_are_refused_unread"),
    ],
    "signature and keys": [
        ("any byte of a signed file", REFUSED, "every_flipped_byte_of_every_file_is_refused"),
        ("any bit of a signature file", REFUSED, "every_flipped_bit_of_the_bundle_is_refused"),
        ("no signature", REFUSED, "unsigned_folders_are_refused"),
        ("an unknown key", REFUSED, "a_key_that_nobody_here_trusts"),
        ("a revoked key", REFUSED, "a_revoked_key"),
        ("a signer that was not trusted then", FOUND, "an_audit_asks_whether_a_signer_was_trusted_at_that_moment"),
        ("the hint of another key", REFUSED, BUNDLES),
        ("no hint", REFUSED, BUNDLES),
        ("two signatures, the first a bad one", REFUSED, BUNDLES),
        ("a signature too many", REFUSED, BUNDLES),
        ("another payload type", REFUSED, BUNDLES),
        ("another predicate", REFUSED, STATEMENTS),
        ("the signature of another protocol", REFUSED, "the_signature_of_another_protocol_is_refused"),
        ("the signature of another patch", REFUSED, "the_signature_of_one_patch_does_not_fit_another"),
        ("no resources", REFUSED, STATEMENTS),
        ("a resource that leads elsewhere", REFUSED, STATEMENTS),
        ("ignored paths that cover files", REFUSED, STATEMENTS),
        ("links allowed", REFUSED, STATEMENTS),
        ("a file that no signature covers", PASS, "files_that_nobody_signed_are_named"),
        ("a signature that was rewritten into its twin", PASS, "rewritten_signatures_verify_and_name_the_same_root"),
        ("a point of small order", REFUSED, "points_that_accept_forgeries_are_no_keys"),
        ("one key counted twice", PASS, "signing_twice_counts_once"),
        ("a key of another kind", REFUSED, "keys_of_other_kinds_are_refused"),
        ("a certificate", REFUSED, BUNDLES),
        (
            "the approval of a key without the role, or of other concepts",
            REFUSED,
            "roles_scopes_and_revoked_keys_decide_what_counts",
        ),
        (
            "one approval where two are asked for",
            REFUSED,
            "a_patch_is_put_on_a_protected_base_when_two_have_approved_it",
        ),
        ("an older trust policy", REFUSED, "an_old_version_does_not_come_back"),
        ("a trust policy that expired", REFUSED, "after_it_expired_what_it_protects_is_only_taken_out"),
        (
            "a trust policy signed by its own keys alone",
            REFUSED,
            "a_version_is_signed_by_its_predecessors_and_its_own_keys",
        ),
        (
            "a further signature under another's name",
            REFUSED,
            "a_further_signature_is_by_the_key_of_its_name_over_these_files",
        ),
        (
            "what a revoked key signed, signed again by another",
            PASS,
            "a_patch_counts_again_once_somebody_trusted_signed_it",
        ),
        (
            "the signature of a key without the role erase, or of other concepts",
            REFUSED,
            "only_who_may_erase_brings_a_patch_of_these_concepts",
        ),
        (
            "a model moved by who has not the role apply",
            REFUSED,
            "a_model_is_moved_by_whose_key_may_apply_and_signs_that",
        ),
        (
            "a token or service that signs with another key",
            REFUSED,
            "any_uri_of_the_library_is_a_key_and_what_comes_back_is_verified",
        ),
        ("a wrong password", REFUSED, "passwords_that_do_not_fit_are_refused_without_a_trace"),
        ("a key file that others can read", REFUSED, "key_files_that_others_may_touch_are_refused"),
        ("a secret in a message", PASS, "no_secret_in_repr_nor_pickle"),
        ("the trust of a key, flipped in its row", REFUSED, "a_row_is_not_believed_at_use_when"),
        ("the policy in force, flipped in its row", REFUSED, "a_row_is_not_believed_at_use_when"),
    ],
    "applying": [
        ("the same patch twice", REFUSED, "a_patch_is_applied_once_and_reverted_once"),
        ("a revert of what is not applied", REFUSED, "a_patch_is_applied_once_and_reverted_once"),
        ("a revert out of order", PASS, "any_order_any_subset"),
        ("killed while it writes", PASS, "killed_at_any_point_the_model_is_old_or_new"),
        ("a full disk", REFUSED, "a_full_disk_changes_nothing"),
        ("a model that was changed outside", REFUSED, "drift_is_refused_and_there_is_a_way_out"),
        ("a patch that was retired", REFUSED, "every_retired_patch_is_named"),
        ("two at once", REFUSED, "two_at_once_do_not_mix"),
        ("a sum that is not exact", REFUSED, "sums_are_exact_below_the_bound_and_refused_from_it_on"),
    ],
    "log and proofs": [
        ("rows edited, swapped, deleted, inserted", FOUND, LOG),
        ("a cut tail", FOUND, "a_writer_does_not_go_on_where_the_tail_was_cut"),
        ("an old copy", FOUND, "an_old_copy_is_caught_by_the_verifier_and_by_the_next_writer"),
        (
            "database and memory of one earlier moment",
            FOUND,
            "a_log_that_was_cut_does_not_continue_the_kept_checkpoint",
        ),
        (
            "rewritten with the stolen key",
            FOUND,
            "a_log_that_was_rewritten_with_the_stolen_key_does_not_continue_the_kept_checkpoint",
        ),
        ("another log of the same length", FOUND, "an_exchanged_log_of_the_same_length_is_caught"),
        ("a checkpoint in another spelling", REFUSED, CHECKPOINTS),
        ("a size with a zero or a plus before it", REFUSED, CHECKPOINTS),
        ("a note with other characters", REFUSED, NOTES),
        ("one signature line twice", PASS, "signing_twice_counts_once"),
        ("a proof too long, too short, swapped", REFUSED, "a_published_proof_that_was_spoilt_is_refused"),
        ("a proof from the empty tree", REFUSED, "a_proof_from_the_empty_tree_proves_nothing"),
        ("an entry that passes for a node", REFUSED, "an_entry_cannot_pass_for_a_node"),
        ("an entry in another spelling", REFUSED, "other_bytes_are_no_entry"),
        ("an entry in another's name, with another's key", FOUND, ACTOR),
        ("the signature of who acted, taken from an older entry", FOUND, ACTOR),
        ("an entry signed by a stranger, or by a key that was revoked", FOUND, ACTOR),
        ("an entry that nobody signed where the policy asks for it", FOUND, ACTOR),
        (
            "a change that who acts does not sign, where the policy asks for it",
            REFUSED,
            "a_policy_asks_for_the_signature_of_who_acts",
        ),
        ("a clock that was set back", FOUND, "what_was_begun_and_a_clock_that_was_set_back_are_reported"),
        ("an entry of 65,536 bytes", REFUSED, "what_the_log_cannot_carry_is_refused"),
        (
            "no checkpoint given out for long",
            REFUSED,
            "nothing_is_applied_or_made_where_the_last_checkpoint_is_too_old_or_refused_without_one",
        ),
        ("a witness that would sign two pasts", REFUSED, "a_witness_never_signs_two_pasts"),
        ("a time stamp over other data", REFUSED, "a_time_stamp_by_an_authority"),
        ("a cosignature in another form", REFUSED, "a_cosignature_is_what_the_specification_lays_down"),
        ("a forged rotation of the log's key", REFUSED, "a_forged_rotation_is_refused_in_every_file"),
        ("the log handed on without its key", FOUND, "a_log_that_was_handed_on_without_the_old_key_fails"),
        ("a foreign log key", REFUSED, "a_foreign_log_key_is_refused_before_it_writes_anything"),
    ],
    "database and process": [
        ("UPDATE, DELETE", REFUSED, LEDGER),
        ("INSERT OR REPLACE", REFUSED, LEDGER),
        ("a gap", REFUSED, LEDGER),
        ("another type in a column", REFUSED, "tables_are_strict_and_keys_are_enforced"),
        ("a trigger that was dropped", REFUSED, SCHEMA),
        ("a schema that was edited", REFUSED, SCHEMA),
        ("triggers and views of a stranger", REFUSED, SCHEMA),
        ("a damaged page", FOUND, "a_damaged_database"),
        ("a row without its parent", FOUND, "an_audit_finds_a_row_that_waits_for_its_parent"),
        ("a killed writer", PASS, "a_killed_writer_loses_nothing_that_it_acknowledged"),
        ("a power cut", PASS, "the_power_goes_in_every_call"),
        ("eight writers", PASS, "writers_at_once_leave_one_log"),
        ("a writer that reads first", PASS, "a_writer_waits_and_then_says_who_is_in_the_way"),
        ("a SQLite that loses data with WAL", PASS, "wal_only_where_it_does_not_lose_data"),
        ("a full or read-only file system", REFUSED, "a_full_file_system"),
        ("a newer schema", REFUSED, "a_newer_schema_is_refused_with_the_way_out"),
        ("a migration that fails", PASS, "an_upgrade_that_cannot_be_logged_changes_nothing"),
        ("a migration that drops triggers", REFUSED, "the_pins_are_those_of_the_migrations"),
    ],
    "Hub": [
        ("a file name that leads elsewhere", REFUSED, "a_bundle_cannot_name_a_file_that_is_none"),
        ("a branch that moved", PASS, "the_pinned_commit_wins_over_a_branch_that_moves"),
        ("the repository of somebody else", REFUSED, "an_untrusted_key_stops_everything_before_any_file_is_read"),
        ("files of two commits", REFUSED, "swapped_bytes_are_refused"),
        ("weights beside the signed ones", PASS, "files_that_nobody_signed_are_left_alone_and_named"),
        ("a download without an end", REFUSED, "an_endless_file_is_refused"),
        ("a token in a message", PASS, "a_hub_that_repeats_the_token_does_not_get_it_into_our_messages"),
        ("a push at the same time", REFUSED, "a_push_on_a_branch_that_moved_is_a_conflict"),
        ("401, 403, 429, 5xx", REFUSED, "trouble_that_stays_is_told"),
    ],
}

ELSEWHERE = {
    "keys that expire",
    "version numbers of patches",
    "an older signed patch in a repository",
    "a database on a network file system",
    "a plain copy of a database in use",
}
"""Attacks on what this program has not, or cannot see."""

ROWS = [
    pytest.param(test, id=f"{room}: {attack} ({outcome})")
    for room, rows in ATTACKS.items()
    for attack, outcome, test in rows
]


@pytest.mark.parametrize("test", ROWS)
def test_an_attack_has_a_test_of_its_outcome(test: str) -> None:
    assert f"def test_{test}(" in THERE


def test_what_no_room_of_ours_is_attacked_by_stands_on_the_page_with_its_reason() -> None:
    rows = PAGE.partition("## Attacks on what is not here")[2]
    found = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", rows, re.MULTILINE))
    assert {name.strip() for name in found if not set(name) <= {"-", " "}} - {"Attack"} == ELSEWHERE


def test_the_page_counts_them() -> None:
    assert f"{len(ROWS)} attacks" in PAGE
    assert f"{len(ELSEWHERE)} kinds" in PAGE
