use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::hash::{BuildHasher, RandomState};

use super::job::Job;

/// Names a lane: the hash of source, topic and key. Two keys that share a hash share a lane,
/// which costs concurrency and never order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LaneId(u64);

/// Holds back the jobs of a key while another one of it is at work.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    hasher: RandomState,
    /// The lanes in which a job is at work, and the jobs that wait behind it.
    occupied: HashMap<LaneId, VecDeque<Job>>,
}

impl Lanes {
    /// The lane of a key.
    pub(super) fn lane(&self, source: usize, topic: &str, key: &str) -> LaneId {
        LaneId(self.hasher.hash_one((source, topic, key)))
    }

    /// Takes the job's lane and gives the job back, or keeps it until the lane is free.
    pub(super) fn enter(&mut self, job: Job) -> Option<Job> {
        let Some(lane) = job.lane else {
            return Some(job);
        };
        match self.occupied.entry(lane) {
            Entry::Occupied(mut waiting) => {
                waiting.get_mut().push_back(job);
                None
            }
            Entry::Vacant(free) => {
                free.insert(VecDeque::new());
                Some(job)
            }
        }
    }

    /// Frees a lane, and gives the next job of it, which takes the lane.
    pub(super) fn leave(&mut self, lane: Option<LaneId>) -> Option<Job> {
        let lane = lane?;
        let next = self.occupied.get_mut(&lane)?.pop_front();
        if next.is_none() {
            self.occupied.remove(&lane);
        }
        next
    }

    /// Takes out all jobs that wait, which then are in no lane. Lanes at work stay occupied.
    pub(super) fn drain_waiting(&mut self) -> impl Iterator<Item = Job> {
        let waiting = self.occupied.values_mut().flat_map(std::mem::take);
        waiting.map(|job| Job { lane: None, ..job })
    }
}
