use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use super::job::Job;

/// Names a lane: the hash of source, topic and key. Two keys that share a hash share a lane,
/// which costs concurrency and never order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LaneId(u64);

/// Holds back the jobs of a key while another one of it is at work.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    hasher: RandomState,
    /// The lanes in which a job is at work.
    occupied: HashMap<LaneId, Lane, RandomState>,
}

#[derive(Debug)]
struct Lane {
    /// How many jobs are at work: one, or those of one batch.
    at_work: usize,
    /// Those behind them.
    waiting: VecDeque<Job>,
}

impl Lanes {
    /// The lane of a key.
    pub(super) fn lane(&self, source: usize, topic: &str, key: &str) -> LaneId {
        LaneId(self.hasher.hash_one((source, topic, key)))
    }

    /// The lane of a partition.
    pub(super) fn partition_lane(&self, source: usize, topic: &str, partition: u32) -> LaneId {
        LaneId(self.hasher.hash_one((source, topic, partition)))
    }

    /// Whether no job is at work.
    pub(super) fn is_empty(&self) -> bool {
        self.occupied.is_empty()
    }

    /// Whether no job of a lane is at work.
    pub(super) fn is_free(&self, lane: LaneId) -> bool {
        !self.occupied.contains_key(&lane)
    }

    /// Takes the job's lane and gives the job back, or keeps it until the lane is free.
    pub(super) fn enter(&mut self, job: Job) -> Option<Job> {
        let Some(lane) = job.lane else {
            return Some(job);
        };
        match self.occupied.entry(lane) {
            Entry::Occupied(mut lane) => {
                lane.get_mut().waiting.push_back(job);
                None
            }
            Entry::Vacant(free) => {
                free.insert(Lane {
                    at_work: 1,
                    waiting: VecDeque::new(),
                });
                Some(job)
            }
        }
    }

    /// Ends a job in a lane. If it was the last at work, gives the next, which takes the lane.
    pub(super) fn leave(&mut self, id: Option<LaneId>) -> Option<Job> {
        let id = id?;
        let lane = self.occupied.get_mut(&id)?;
        if lane.at_work > 1 {
            lane.at_work -= 1;
            return None;
        }
        let next = lane.waiting.pop_front();
        if next.is_none() {
            self.occupied.remove(&id);
        }
        next
    }

    /// Gives the next job of an occupied lane if it may work beside those that do.
    pub(super) fn join(&mut self, lane: LaneId, may: impl Fn(&Job) -> bool) -> Option<Job> {
        let lane = self.occupied.get_mut(&lane)?;
        if !lane.waiting.front().is_some_and(may) {
            return None;
        }
        lane.at_work += 1;
        lane.waiting.pop_front()
    }

    /// Lets a job that was at work wait again, before all others. Another one of its lane is at
    /// work.
    pub(super) fn put_back(&mut self, job: Job) {
        let lane = job.lane.and_then(|id| self.occupied.get_mut(&id));
        let lane = lane.expect("the lane of a job at work is occupied");
        lane.at_work -= 1;
        lane.waiting.push_front(job);
    }

    /// Takes out all jobs that wait, which then are in no lane. Lanes at work stay occupied.
    pub(super) fn drain_waiting(&mut self) -> impl Iterator<Item = Job> {
        let lanes = self.occupied.values_mut();
        let waiting = lanes.flat_map(|lane| std::mem::take(&mut lane.waiting));
        waiting.map(|mut job| {
            job.lane = None;
            job
        })
    }
}
