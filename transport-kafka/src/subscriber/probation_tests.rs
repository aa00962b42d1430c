use super::*;

fn known(mark: Mark) -> Known {
    Known::new(1, ("t".to_owned(), 0), mark)
}

fn mark(open: u64, batch: u64, trials: &[(u64, u32)]) -> Mark {
    let trials = trials.to_vec();
    Mark {
        open,
        batch,
        trials,
    }
}

#[test]
fn a_mark_is_read_as_it_is_written() {
    for mark in [
        mark(0, 0, &[]),
        mark(7, 3, &[]),
        mark(9, 4, &[(2, 1), (3, 2)]),
    ] {
        assert_eq!(Mark::parse(&mark.to_string()), mark);
    }
    assert_eq!(Mark::parse("somebody else's"), Mark::default());
}

#[test]
fn after_a_good_end_the_mark_is_raised_far_ahead() {
    let known = known(Mark::default());
    assert!(!known.covers(5));
    let raised = known.raised_over(5);
    assert_eq!(raised.mark, mark(5 + LEAST_AHEAD, 0, &[]));
    assert!(raised.covers(4 + LEAST_AHEAD) && !raised.covers(5 + LEAST_AHEAD));
    let half = LEAST_AHEAD / 2;
    assert!(raised.covers_far(4 + half) && !raised.covers_far(5 + half));
    assert_eq!(raised.raised_over(2_000).ahead, 4 * LEAST_AHEAD);
    assert_eq!(raised.suspects_below, 0);
}

#[test]
fn behind_a_member_that_died_each_batch_is_marked_up_to_where_it_may_have_been() {
    let known = known(mark(1_000, 0, &[]));
    let first = known.raised_over(99);
    assert_eq!(first.mark, mark(1_000, 100, &[]));
    assert!(first.covers(99) && !first.covers(100));
    assert!(first.covers_far(99) && !first.covers_far(100));
    let second = first.raised_over(1_500);
    assert_eq!(second.mark, mark(1_500 + LEAST_AHEAD, 100, &[]));
    assert!(second.covers(1_500));
}

#[test]
fn the_starts_of_those_that_were_at_work_when_a_member_died_are_kept() {
    let mut known = known(mark(1_000, 100, &[(40, 2)]));
    assert_eq!(known.suspects_below, 100);
    assert!(known.covers(99), "what was marked stays so");
    assert_eq!(known.begin(38), 0);
    assert_eq!(known.begin(39), 0);
    assert_eq!(known.mark.trials, [(40, 2), (39, 1)], "38 has passed");
    assert_eq!(known.begin(40), 2);
    assert_eq!(known.mark.trials, [(40, 3)], "39 has passed");
    assert_eq!(known.raised_over(150).mark, mark(1_000, 151, &[(40, 3)]));
}
