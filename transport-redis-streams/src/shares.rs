//! How the partitions of a topic are shared out among the members of a group.
//!
//! Nobody hands anything out: each member knows how many partitions are its share, gives up what it
//! has beyond it, and takes free ones up to it. The shares add up to all partitions, so that every one
//! has somebody to take it, and one that is in its share stays where it is.

/// How many partitions are a member's share: the same for all, but for one more for the first.
/// `rank` is its place among the members.
pub(crate) fn share(partitions: usize, members: usize, rank: usize) -> usize {
    let members = members.max(1);
    partitions / members + usize::from(rank < partitions % members)
}

/// The order in which a member looks for free partitions: it begins elsewhere than the others, so
/// that they do not all reach for the same.
pub(crate) fn looking_order(
    partitions: usize,
    members: usize,
    rank: usize,
) -> impl Iterator<Item = usize> {
    let start = rank * partitions / members.max(1);
    (0..partitions).map(move |step| (start + step) % partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who owns each partition.
    type Owners = Vec<Option<&'static str>>;

    /// Lets every member give up and take in turn until nothing changes. Returns how many
    /// partitions changed hands from one living member to another.
    fn settle(owners: &mut Owners, members: &[&'static str]) -> usize {
        let before = owners.clone();
        for owner in owners.iter_mut() {
            *owner = owner.filter(|it| members.contains(it));
        }
        loop {
            let last = owners.clone();
            for (rank, member) in members.iter().enumerate() {
                let count = owners.len();
                let share = share(count, members.len(), rank);
                let owned =
                    |owners: &Owners| owners.iter().flatten().filter(|it| *it == member).count();
                for index in (0..count).rev() {
                    if owned(owners) > share && owners[index] == Some(member) {
                        owners[index] = None;
                    }
                }
                for index in looking_order(count, members.len(), rank) {
                    if owned(owners) < share && owners[index].is_none() {
                        owners[index] = Some(member);
                    }
                }
            }
            if last == *owners {
                break;
            }
        }
        let moved = |(before, after): (&Option<&str>, &Option<&str>)| {
            before.is_some_and(|it| members.contains(&it)) && before != after
        };
        before.iter().zip(&*owners).filter(|it| moved(*it)).count()
    }

    fn sizes(owners: &Owners, members: &[&'static str]) -> Vec<usize> {
        let of = |member| owners.iter().flatten().filter(|it| *it == member).count();
        members.iter().map(of).collect()
    }

    #[test]
    fn shares_differ_by_at_most_one_and_add_up() {
        for partitions in 0..70 {
            for members in 1..12 {
                let shares: Vec<_> = (0..members)
                    .map(|rank| share(partitions, members, rank))
                    .collect();
                assert_eq!(shares.iter().sum::<usize>(), partitions);
                let (least, most) = (shares.iter().min(), shares.iter().max());
                assert!(most.unwrap() - least.unwrap() <= 1, "{shares:?}");
            }
        }
    }

    #[test]
    fn every_partition_is_looked_at_once() {
        for rank in 0..3 {
            let mut order: Vec<_> = looking_order(7, 3, rank).collect();
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2, 3, 4, 5, 6]);
        }
        assert_eq!(looking_order(0, 3, 1).count(), 0);
    }

    #[test]
    fn who_joins_gets_its_share_and_no_more_moves() {
        let mut owners: Owners = vec![None; 8];
        assert_eq!(settle(&mut owners, &["a"]), 0);
        assert_eq!(sizes(&owners, &["a"]), [8]);
        assert_eq!(settle(&mut owners, &["a", "b"]), 4);
        assert_eq!(settle(&mut owners, &["a", "b", "c"]), 2);
        assert_eq!(sizes(&owners, &["a", "b", "c"]), [3, 3, 2]);
        assert_eq!(settle(&mut owners, &["a", "b", "c"]), 0);
    }

    #[test]
    fn what_a_member_leaves_goes_to_the_others_and_they_keep_what_they_have() {
        let mut owners: Owners = vec![None; 8];
        for members in [&["a"][..], &["a", "b"], &["a", "b", "c"]] {
            settle(&mut owners, members);
        }
        assert_eq!(settle(&mut owners, &["b", "c"]), 0);
        assert_eq!(sizes(&owners, &["b", "c"]), [4, 4]);
    }

    #[test]
    fn more_members_than_partitions_leave_some_without() {
        let mut owners: Owners = vec![None; 2];
        let members = ["a", "b", "c"];
        settle(&mut owners, &members);
        assert_eq!(sizes(&owners, &members), [1, 1, 0]);
        assert_eq!(settle(&mut owners, &["c"]), 0);
        assert_eq!(sizes(&owners, &["c"]), [2]);
    }
}
