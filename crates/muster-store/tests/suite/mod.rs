//! One suite for every engine: test functions over any [`Store`], and one line per engine to run them all.
//!
//! An engine's test file says how a fresh, empty store is made:
//!
//! ```ignore
//! mod suite;
//! suite::run_for!(async || SqlStore::temporary().unwrap());
//! ```

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

pub mod actions;
pub mod agent_counts;
pub mod agents;
pub mod alerts;
pub mod carves;
pub mod commits;
pub mod disk_keys;
pub mod enrollment_keys;
pub mod files;
pub mod host_checks;
pub mod idempotency;
pub mod identity;
pub mod installs;
pub mod inventory;
pub mod labels;
pub mod lists;
pub mod live_queries;
pub mod log_ins;
pub mod network_objects;
pub mod nodes;
pub mod output_keys;
pub mod policies;
pub mod query_failures;
pub mod rollouts;
pub mod sample;
pub mod scripts;
pub mod settings;
pub mod software;
pub mod spaces;
pub mod uninstall_tokens;

/// Runs every test of the suite on stores that `$make` makes.
macro_rules! run_for {
    ($make:expr) => {
        suite::run_for!(@module $make, actions: [
            an_action_comes_back_with_its_place_in_the_order,
            ea75_what_is_due_comes_in_order_after_the_position,
            ea76_an_expired_action_is_not_due,
            ea77_types_that_are_never_delivered_are_due_so_that_the_position_passes_them,
            a_target_that_the_server_ends_is_answered_once,
            ea42_d14_a_new_life_starts_after_all_that_was_before_it,
            d14_a_reinstalled_agent_gets_only_what_it_has_not_acknowledged,
            d14_the_open_targets_of_an_agent_that_left_end_with_an_error,
            ea119_the_first_result_stays,
            ea120_results_come_newest_first_with_all_they_say,
            d17_an_answer_of_an_agent_that_was_not_addressed_is_refused,
            an_ineligible_agent_is_recorded_but_never_ordered,
            targets_come_in_slices_that_meet,
            counts_follow_the_results,
            a_cancellation_keeps_its_first_time,
            actions_are_listed_newest_first_by_filter,
            actions_within_a_scope_have_the_targets_of_it_only,
            orders_are_unfinished_until_they_are_finished_or_gone,
            revisions_after_the_first_are_listed_among_actions,
            old_actions_are_collected_with_all_their_own,
        ]);
        suite::run_for!(@module $make, agents: [
            a_record_comes_back_as_it_was_written,
            every_kind_status_and_reason_comes_back,
            an_id_is_taken_once,
            an_access_key_is_one_agents,
            an_update_stores_every_field_whichever_changed,
            an_update_from_an_older_version_is_refused,
            an_update_counts_its_version_up_by_one,
            fl148_a_commit_is_refused_if_the_agent_is_bound_to_another_certificate,
            a_commit_that_needs_agents_of_a_space_is_refused_after_one_has_left_it,
            an_update_of_nobody_is_refused,
            a_commit_that_needs_a_version_is_refused_after_a_change,
            one_of_two_concurrent_updates_wins,
            ea41_a_replaced_access_key_finds_nobody,
            several_credentials_live_at_once_and_stay_as_rows_after_their_end,
            a_host_is_its_machines_and_goes_with_its_last_agent,
            hosts_of_matching_agents_are_listed_by_name,
            a_list_of_hosts_continues_behind_a_cursor,
            one_agent_of_a_key_and_an_enrollment_id_waits_for_its_first_check_in,
            documents_that_are_not_named_stay,
            check_in_times_only_grow,
            a_deleted_agent_is_gone_everywhere,
            d14_a_new_life_inherits_no_orders,
            agents_are_due_in_the_order_of_their_deadlines,
        ]);
        suite::run_for!(@module $make, alerts: [
            events_come_back_in_the_order_of_their_commits,
            events_are_found_by_subject_and_by_space_newest_first,
            old_events_are_pruned_but_never_the_newest,
            a_receiver_comes_back_and_changes_by_version,
            progress_is_stored_with_the_fence_of_its_sender,
            a_space_has_a_limited_number_of_receivers,
        ]);
        suite::run_for!(@module $make, commits: [
            nothing_to_write_is_no_error,
            a_commit_is_whole_or_not_there,
            what_was_answered_is_read_at_once,
            commits_side_by_side_do_not_spoil_each_other,
            the_change_log_keeps_order_and_subjects,
            the_change_log_wakes_after_the_commit,
            the_change_log_loses_its_oldest_rows_but_never_its_newest,
            the_audit_chain_verifies_over_many_commits,
            events_about_an_object_are_found_newest_first,
            mg164_the_audit_log_is_append_only_in_the_store_itself,
        ]);
        suite::run_for!(@module $make, enrollment_keys: [
            a_key_comes_back_by_both_ids,
            a_key_is_read_together_with_the_policy_that_its_agents_get,
            a_live_name_is_its_policys_alone,
            an_id_or_a_public_half_is_taken_once,
            fl77_a_space_has_a_limited_number_of_live_enroll_secrets,
            keys_that_expired_before_a_time_are_found,
            uses_are_counted,
            fl82_fl85_a_one_time_secret_is_used_once_by_each_program_of_a_host,
            d20_a_key_that_does_not_admit_is_refused_inside_the_commit,
            one_of_two_concurrent_uses_of_the_last_wins,
            a_revocation_keeps_its_first_time,
            a_deleted_key_is_gone,
            keys_are_listed_newest_first,
        ]);
        suite::run_for!(@module $make, files: [
            an_upload_comes_back_by_id_and_by_order,
            d6_an_agent_has_one_upload_for_an_action,
            uploads_are_listed_newest_first,
            d6_a_new_upload_takes_the_place_of_a_failed_or_removed_one,
            ea134_uploads_of_an_age_are_found_by_state,
            ea131_chunks_come_in_any_order_and_are_listed_in_order,
            d6_a_chunk_again_changes_nothing_and_another_one_replaces_it,
            a_whole_chunk_comes_back,
            a_closed_upload_takes_no_chunk_in_the_commit_that_asks,
            an_upload_ends_on_the_chunks_that_were_decided_on,
            what_an_agent_may_upload_is_counted_in_the_commit,
            few_records_of_closed_uploads_are_kept_of_an_agent,
            a_complete_upload_keeps_its_chunks_and_a_failed_one_does_not,
            a_file_for_agents_comes_back,
            ea126_an_artifact_is_found_by_name_and_hash_and_can_be_replaced,
        ]);
        suite::run_for!(@module $make, idempotency: [
            a_key_belongs_to_one_request_of_its_account,
            keys_of_an_account_are_limited_and_old_ones_forgotten,
            only_the_request_that_used_a_key_finishes_or_forgets_it,
        ]);
        suite::run_for!(@module $make, identity: [
            a_user_comes_back_by_id_name_and_subject,
            names_of_users_are_taken_once_and_changes_start_from_the_newest,
            a_deleted_user_is_gone_with_everything_of_it,
            a_principal_has_the_bindings_of_the_user_and_of_the_groups,
            a_role_in_use_stays_and_a_changed_one_is_in_force_at_once,
            the_last_administrator_stays,
            tokens_are_revoked_used_and_listed_newest_first,
            sessions_and_links_end,
            spaces_are_created_changed_and_deleted_when_empty,
            views_belong_to_a_person_and_a_space,
        ]);
        suite::run_for!(@module $make, labels: [
            labels_come_back_by_name_and_change_by_version,
            hosts_have_labels_of_their_space,
            errors_of_labels_are_counted_until_their_queries_run,
            agents_are_found_by_the_labels_of_their_hosts,
            a_space_has_a_limited_number_of_labels,
            labels_that_are_named_exist,
        ]);
        suite::run_for!(@module $make, carves: [
            fl40_blocks_are_counted_in_order_and_the_last_completes_the_carve,
            fl165_a_failed_carve_keeps_its_reason_and_no_bytes,
            a_host_has_one_carve_in_progress_and_its_archives_are_limited,
            carves_expire_and_their_records_are_deleted_later,
            a_deleted_agent_leaves_no_carve,
            blocks_of_deleted_carves_are_removed_in_batches,
        ]);
        suite::run_for!(@module $make, scripts: [
            a_script_is_due_until_its_result_comes,
            agents_with_something_to_execute_are_found,
            a_host_that_leaves_ends_only_what_it_could_still_run,
            a_run_does_not_wait_for_hosts_that_left_its_space_before_it,
            a_stopped_run_is_due_for_nobody_and_takes_results,
            ended_runs_are_limited_by_the_bytes_of_their_results,
            the_executions_of_a_deleted_host_end,
            runs_are_limited_and_old_ones_deleted_with_their_results,
            scripts_are_saved_replaced_and_deleted,
        ]);
        suite::run_for!(@module $make, installs: [
            a_package_is_complete_with_the_blocks_that_were_verified,
            installers_are_unique_limited_and_deleted_with_their_blocks,
            fl63_an_install_is_due_until_its_last_result_comes,
            agents_with_something_to_install_are_found,
            a_host_that_leaves_ends_only_what_it_could_still_install,
            a_run_does_not_wait_for_hosts_that_left_its_space_before_it,
            an_installer_stays_while_a_host_that_has_begun_may_fetch_it,
            a_condition_that_is_not_met_is_no_failure,
            installs_of_a_host_are_newest_first_and_end_with_it,
            install_runs_are_limited_and_old_ones_deleted,
            only_the_newest_result_of_a_host_counts_in_bytes,
            the_blocks_of_deleted_packages_are_removed_in_batches,
        ]);
        suite::run_for!(@module $make, disk_keys: [
            fl64_an_error_keeps_the_key_and_a_key_clears_the_error,
            fl56_a_host_is_told_to_report_its_key_until_it_answers,
            a_disk_key_does_not_follow_its_agent_to_another_space,
            a_disk_key_that_is_handed_over_follows_its_agent_once,
            a_commit_that_expects_a_disk_key_or_none_is_refused_otherwise,
            the_keys_of_a_deleted_space_go_to_the_default_space,
        ]);
        suite::run_for!(@module $make, live_queries: [
            a_live_query_ends_with_its_last_answer,
            answers_are_numbered_and_come_in_pages_of_a_size,
            fl34_fl35_only_the_first_answer_of_a_target_counts_and_none_after_the_end,
            a_live_query_ends_when_its_results_reach_the_limit,
            targets_that_cannot_answer_are_counted,
            a_live_query_does_not_wait_for_targets_that_leave_its_space,
            the_number_of_live_queries_is_limited,
            a_live_query_can_be_prolonged,
            old_live_queries_are_deleted_with_their_results,
        ]);
        suite::run_for!(@module $make, log_ins: [
            a_provider_comes_back_and_changes_start_from_the_newest,
            a_deleted_provider_ends_the_sessions_and_tokens_of_its_users,
            mg165_a_token_has_the_rights_of_its_groups,
            a_subject_belongs_to_one_user,
            a_log_in_is_completed_once,
            a_device_is_decided_once_and_taken_once,
            log_ins_of_devices_are_bounded_and_those_that_ended_make_room,
        ]);
        suite::run_for!(@module $make, agent_counts: [
            maintained_numbers_equal_a_recount_after_random_histories,
            numbers_of_an_hour_are_recorded_once_and_old_ones_deleted,
        ]);
        suite::run_for!(@module $make, lists: [
            agents_are_found_by_text_facts_and_version,
            mg25_versions_are_sorted_by_their_numbers,
            each_filter_holds_and_all_of_them_together,
            departures_and_pending_policies_are_found_by_time,
            agents_are_counted_by_operating_system,
            agents_are_counted_by_program,
            hosts_and_agents_are_found_by_their_system,
            named_agents_come_in_the_order_of_their_names,
            a_filter_of_very_many_ids_works,
            mg149_agents_unseen_for_long_are_found,
            agents_with_another_inactivity_timeout_are_found,
            texts_that_many_agents_contain_are_counted,
            each_order_and_its_reverse,
            the_list_by_check_in_follows_each_change_of_an_agent,
            pages_cover_the_list_and_tell_the_total,
            cursors_show_each_agent_once_in_every_order,
            host_names_and_times_of_enrollment_are_filtered_by,
            agents_are_filtered_by_what_they_reported,
            lists_carry_metadata_but_not_components,
            ids_come_in_slices_that_meet,
            statuses_are_counted,
            tags_in_use_are_sorted_ignoring_case,
            changed_tags_are_filtered_by_at_once,
        ]);
        suite::run_for!(@module $make, network_objects: [
            a_network_object_comes_back_and_changes,
            mg105_each_kind_of_a_space_has_one_default,
            names_and_ids_are_unique_within_a_kind,
            a_deleted_network_object_is_gone,
            network_objects_of_other_spaces_are_not_listed,
        ]);
        suite::run_for!(@module $make, nodes: [
            the_node_of_a_store_is_listed_described_and_drained,
            the_only_node_gets_every_lease_and_commits_with_its_token,
            the_end_of_the_change_log_is_known_at_once,
        ]);
        suite::run_for!(@module $make, output_keys: [
            a_key_comes_back_and_changes_from_the_version_before,
            a_result_is_stored_if_the_key_is_still_wanted_in_that_form,
            a_result_for_an_agent_that_is_gone_is_retired,
            ea108_the_keys_of_an_agent_that_leaves_are_due_in_the_same_commit,
            ea108_the_keys_of_a_deleted_agent_are_due,
            a_retired_key_waits_for_a_confirmation,
            a_cluster_keeps_its_failure_until_it_is_put_again,
            ag104_a_cluster_keeps_its_bootstrap_settings_in_use_until_it_has_none,
            work_is_found_by_cluster_state_and_time,
            keys_are_counted,
        ]);
        suite::run_for!(@module $make, policies: [
            a_policy_comes_back_by_id_and_name,
            ids_and_names_are_taken_once,
            a_change_starts_from_the_newest,
            revisions_are_immutable_and_newest_first,
            policies_are_listed_by_name,
            active_agents_are_counted_per_policy,
            a_policy_with_active_agents_stays_and_one_without_goes_with_all_its_own,
        ]);
        suite::run_for!(@module $make, rollouts: [
            a_rollout_comes_back_and_changes_by_version,
            a_policy_has_one_active_rollout,
            a_dry_run_checks_preconditions_and_writes_nothing,
            agents_are_found_by_their_place,
            the_agents_of_an_upgrade_are_found_by_its_rollout,
        ]);
        suite::run_for!(@module $make, host_checks: [
            results_are_put_replaced_removed_and_counted,
            hosts_on_which_the_query_does_not_run_are_counted_with_the_newest_error,
            results_are_deleted_with_their_agent,
            results_stay_behind_when_their_agent_moves_to_another_space,
            changes_of_answers_are_kept_up_to_a_number_and_an_age,
            numbers_of_hosts_are_recorded_once_a_day_and_old_ones_deleted,
        ]);
        suite::run_for!(@module $make, query_failures: [
            failures_are_put_replaced_removed_and_counted,
            failures_end_with_their_time_their_agent_and_its_stay_in_the_space,
        ]);
        suite::run_for!(@module $make, inventory: [
            documents_are_put_replaced_and_found_by_agent_and_kind,
            documents_end_with_their_agent_and_its_stay_in_the_space,
        ]);
        suite::run_for!(@module $make, software: [
            software_is_found_by_name_in_its_space_after_it_was_indexed,
            the_index_follows_changes_moves_and_deletions,
            software_that_no_host_has_is_forgotten_later,
            the_software_of_a_space_is_read_by_cursor,
            the_index_has_many_hosts_in_chunks,
        ]);
        suite::run_for!(@module $make, settings: [
            an_output_comes_back_and_changes,
            outputs_are_listed_by_name_and_a_name_is_taken_once,
            each_default_flag_has_one_holder,
            a_deleted_output_is_gone,
            secrets_are_put_replaced_and_removed,
            settings_are_put_and_replaced,
            a_setting_is_swapped_only_while_it_has_the_known_value,
            a_change_can_depend_on_a_setting_that_is_unchanged,
        ]);
        suite::run_for!(@module $make, uninstall_tokens: [
            the_newest_token_of_each_policy_is_listed,
            mg82_tokens_are_found_by_policy_id_and_name,
            a_number_is_taken_once,
        ]);
        suite::run_for!(@module $make, spaces: [
            an_object_is_found_in_its_own_space_only,
            lists_and_counts_are_of_one_space,
            names_are_unique_within_a_space,
            each_space_has_a_default_output_of_its_own,
            an_agent_that_leaves_a_space_leaves_its_actions_behind,
        ]);
    };
    (@module $make:expr, $module:ident: [$($test:ident),+ $(,)?]) => {
        mod $module {
            use super::*;

            $(
                #[tokio::test]
                async fn $test() {
                    let make = $make;
                    suite::$module::$test(&make().await).await;
                }
            )+
        }
    };
}
pub(crate) use run_for;
