//! The flaws that the suite must notice, and the cases that must notice each.

/// What is wrong with a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    LosesOnPublish,
    LosesOnReceive,
    LosesOnCancel,
    LosesReadAheadOnCrash,
    Duplicates,
    DuplicatesOnPublish,
    ReordersDeliveries,
    ReordersOnPublish,
    SplitsKeysAmongMembers,
    AcksAtDelivery,
    AcksUpToHighest,
    AcksReleased,
    AcksWhatIsStale,
    AcksOnClose,
    KeepsDeadMembers,
    MixesUpOutcomes,
    HidesRejection,
    FailsWholeBatch,
    GivesTooFewOutcomes,
    IgnoresClose,
    HangsOnClose,
    StartsAtNow,
    JoinsAtFirstRecv,
    OneGroupForAll,
    OneGroupEach,
    IgnoresMax,
    SkipsUndecodable,
    ChangesRawBytes,
    LosesHeaders,
    MakesKeyOfSubject,
    MakesNoDataEmpty,
    CutsLargeData,
    AttemptIsAlwaysOne,
    OneSourceForAll,
    NothingIsCurrent,
    SettlesBetweenReceives,
    HasNoLag,
    SaysTopicsExist,
    IgnoresPatterns,
    StoresPartOfTransactions,
    StoresWhatWasAborted,
    ReordersTransactions,
    PublishesWithoutSettling,
    SettlesBeforePublishing,
    PublishesWhatIsStale,
    RepeatsSteps,
    ForwardsWithoutAck,
    AcksWithoutForwarding,
    ForwardsTwice,
    ForgetsStarts,
    BrowsesFromTheSecond,
    PurgesNothing,
    GrantsTwice,
    ForgetsWhatIsDone,
    RenewsNothing,
    IgnoresFences,
    ReleasesNothing,
    ForgetsToReset,
    ResetsUnderMembers,
    ListsHalfOfTheTopics,
    AltersNothing,
}

/// A flaw, the cases that must fail by it, and a word of the reason that each must give. Others
/// may fail too.
pub(crate) type Caught = (Flaw, &'static [&'static str], &'static str);

pub(crate) const CAUGHT_BY: &[Caught] = &[
    (
        Flaw::LosesOnPublish,
        &["many_events_arrive_once", "concurrent_publishers"],
        "lost",
    ),
    (
        Flaw::LosesOnReceive,
        &["many_events_arrive_once", "members_share_the_events"],
        "lost",
    ),
    (
        Flaw::LosesOnCancel,
        &["cancelled_recv_loses_nothing"],
        "lost",
    ),
    (
        Flaw::LosesReadAheadOnCrash,
        &["crash_with_read_ahead_loses_nothing"],
        "lost",
    ),
    (
        Flaw::Duplicates,
        &["many_events_arrive_once", "members_share_the_events"],
        "duplicated",
    ),
    (
        Flaw::DuplicatesOnPublish,
        &["many_events_arrive_once", "concurrent_publishers"],
        "duplicated",
    ),
    (
        Flaw::ReordersDeliveries,
        &["order_per_key_within_a_member"],
        "out of order",
    ),
    (
        Flaw::ReordersOnPublish,
        &["order_per_key_within_a_member", "concurrent_publishers"],
        "out of order",
    ),
    (
        Flaw::SplitsKeysAmongMembers,
        &["order_per_key_across_the_group"],
        "while another had not settled",
    ),
    (
        Flaw::AcksAtDelivery,
        &[
            "unsettled_events_come_back",
            "crash_before_ack_is_claimed_by_another",
        ],
        "lost",
    ),
    (
        Flaw::AcksUpToHighest,
        &["settling_out_of_order_keeps_the_unsettled"],
        "lost",
    ),
    (
        Flaw::AcksReleased,
        &["released_events_come_back", "every_settlement_has_a_result"],
        "lost",
    ),
    (
        Flaw::AcksWhatIsStale,
        &["settling_for_a_dead_member_is_stale"],
        "belongs to another member",
    ),
    (Flaw::AcksOnClose, &["unsettled_events_come_back"], "lost"),
    (
        Flaw::KeepsDeadMembers,
        &[
            "crash_before_ack_is_claimed_by_another",
            "crash_of_the_last_member_loses_nothing",
        ],
        "",
    ),
    (
        Flaw::MixesUpOutcomes,
        &["outcomes_name_positions"],
        "position",
    ),
    (
        Flaw::HidesRejection,
        &["refused_event_fails_alone", "closed_publisher_refuses"],
        "Accepted",
    ),
    (
        Flaw::FailsWholeBatch,
        &["refused_event_fails_alone"],
        "only event 7 was to be rejected",
    ),
    (
        Flaw::GivesTooFewOutcomes,
        &["large_batch"],
        "100 outcomes came back",
    ),
    (
        Flaw::IgnoresClose,
        &["closed_publisher_refuses"],
        "Accepted",
    ),
    (
        Flaw::HangsOnClose,
        &["close_during_publish", "closed_publisher_refuses"],
        "hung at: closing a publisher",
    ),
    (
        Flaw::StartsAtNow,
        &["publish_then_subscribe", "each_group_gets_every_event"],
        "lost",
    ),
    (
        Flaw::JoinsAtFirstRecv,
        &["start_is_settled_when_subscribe_returns"],
        "lost",
    ),
    (
        Flaw::OneGroupForAll,
        &[
            "each_group_gets_every_event",
            "concurrent_groups_and_members",
        ],
        "lost",
    ),
    (
        Flaw::OneGroupEach,
        &["members_share_the_events", "a_leaving_member_hands_over"],
        "",
    ),
    (Flaw::IgnoresMax, &["recv_gives_at_most_max"], "`recv("),
    (
        Flaw::SkipsUndecodable,
        &["undecodable_bytes_are_delivered"],
        "did not come",
    ),
    (
        Flaw::ChangesRawBytes,
        &[
            "undecodable_bytes_are_delivered",
            "a_record_is_forwarded_as_it_is",
        ],
        "came as",
    ),
    (Flaw::LosesHeaders, &["headers_survive"], "came back as []"),
    (Flaw::MakesKeyOfSubject, &["nothing_is_made_up"], "made up"),
    (
        Flaw::MakesNoDataEmpty,
        &["no_data_is_not_empty_data"],
        "changed",
    ),
    (Flaw::CutsLargeData, &["one_mebibyte_payloads"], "changed"),
    (
        Flaw::AttemptIsAlwaysOne,
        &["attempts_are_counted"],
        "came with the attempts {1}",
    ),
    (
        Flaw::OneSourceForAll,
        &["tokens_name_their_source"],
        "token",
    ),
    (
        Flaw::NothingIsCurrent,
        &["any_settler_settles"],
        "told that it does not",
    ),
    (
        Flaw::SettlesBetweenReceives,
        &["settling_does_not_wait_for_recv"],
        "hung at: settling while `recv` waits",
    ),
    (
        Flaw::HasNoLag,
        &["lag_goes_to_zero", "back_pressure"],
        "lag is",
    ),
    (
        Flaw::SaysTopicsExist,
        &["describe_tells_what_is_there"],
        "never: the descriptions are right",
    ),
    (Flaw::IgnoresPatterns, &["topics_are_discovered"], "lost"),
    (
        Flaw::StoresPartOfTransactions,
        &["transaction_stores_all", "concurrent_transactions"],
        "lost",
    ),
    (
        Flaw::StoresWhatWasAborted,
        &["refused_transaction_stores_nothing"],
        "nobody expects it",
    ),
    (
        Flaw::ReordersTransactions,
        &["transaction_stores_all"],
        "position",
    ),
    (
        Flaw::PublishesWithoutSettling,
        &["step_settles_and_publishes"],
        "",
    ),
    (
        Flaw::SettlesBeforePublishing,
        &["refused_step_settles_nothing"],
        "did not come",
    ),
    (
        Flaw::PublishesWhatIsStale,
        &["stale_step_publishes_nothing"],
        "answered Ok",
    ),
    (
        Flaw::RepeatsSteps,
        &["step_made_again_takes_effect_once"],
        "duplicated",
    ),
    (
        Flaw::ForwardsWithoutAck,
        &["forwarding_stores_and_acknowledges"],
        "nothing more was to come",
    ),
    (
        Flaw::AcksWithoutForwarding,
        &["forwarding_stores_and_acknowledges"],
        "lost",
    ),
    (
        Flaw::ForwardsTwice,
        &[
            "forwarding_stores_and_acknowledges",
            "forwarding_what_was_given_back_is_stale",
        ],
        "",
    ),
    (
        Flaw::ForgetsStarts,
        &["starts_are_counted_over_dead_members"],
        "starts were noted and 0 are known",
    ),
    (
        Flaw::BrowsesFromTheSecond,
        &["browsing_reads_everything_and_changes_nothing"],
        "browsing lost some",
    ),
    (
        Flaw::PurgesNothing,
        &["purged_records_are_gone"],
        "after deleting ten there are",
    ),
    (
        Flaw::GrantsTwice,
        &["idempotency_grants_a_key_once"],
        "not granted once",
    ),
    (
        Flaw::ForgetsWhatIsDone,
        &["idempotency_remembers_what_is_done"],
        "is Claimed",
    ),
    (
        Flaw::RenewsNothing,
        &["idempotency_renews_and_releases", "idempotency_is_fenced"],
        "renewed",
    ),
    (
        Flaw::IgnoresFences,
        &["idempotency_is_fenced"],
        "a late holder completed",
    ),
    (
        Flaw::ReleasesNothing,
        &["idempotency_renews_and_releases"],
        "is Busy",
    ),
    (
        Flaw::ForgetsToReset,
        &[
            "reset_to_the_beginning_replays",
            "reset_to_a_time_replays_from_then",
        ],
        "lost",
    ),
    (
        Flaw::ResetsUnderMembers,
        &["reset_under_members_is_refused"],
        "the answer was Ok",
    ),
    (
        Flaw::ListsHalfOfTheTopics,
        &["topics_are_listed"],
        "the list has",
    ),
    (
        Flaw::AltersNothing,
        &[
            "topics_are_changed_as_specified",
            "a_missing_topic_is_not_changed",
        ],
        "the",
    ),
];
