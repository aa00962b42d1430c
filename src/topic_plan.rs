use std::fmt;

use crate::bus::Bus;
use crate::topic::{TopicAction, TopicStep};
use crate::transport::{Admin, TopicSpec};
use crate::{Error, Result, Text};

/// What there is to do so that the topics are on the servers as the config wants them. Made by
/// [`Topics::plan`](crate::Topics::plan).
///
/// Prints as text to be read before it is applied: `+` is made, `~` is changed, `!` is refused, `=` is
/// as it is wanted.
///
/// ```text
/// kafka
///   + filops.alerts: partitions 3, retention 7d
///   ~ filops.deals.status
///       partitions: 6 -> 12
///   ! filops.policies.updates
///       refused: retention: 30d -> 7d: events would be deleted: ..
/// 1 to make, 1 to change, 1 refused, 0 as wanted
/// ```
///
/// No topic is ever deleted.
#[derive(Clone)]
#[must_use = "a plan does nothing until it is applied"]
pub struct TopicPlan {
    bus: Bus,
    steps: Vec<TopicStep>,
    shrinking: bool,
}

impl TopicPlan {
    pub(crate) fn new(bus: Bus, steps: Vec<TopicStep>) -> Self {
        Self {
            bus,
            steps,
            shrinking: false,
        }
    }

    /// What there is to do, topic by topic: those that need nothing are there too.
    pub fn steps(&self) -> &[TopicStep] {
        &self.steps
    }

    /// Whether all topics are as they are wanted.
    pub fn is_empty(&self) -> bool {
        self.count(|step| step.action != TopicAction::Keep) == 0
    }

    /// Allows changes by which less is kept than before, or smaller messages are taken. Events may be
    /// deleted by them.
    pub fn allow_shrinking(mut self) -> Self {
        self.shrinking = true;
        self
    }

    /// Why the plan can't be applied, if so: one error for each topic.
    pub fn refusals(&self) -> Vec<Error> {
        let steps = self.steps.iter();
        steps.filter_map(|it| it.refusal(self.shrinking)).collect()
    }

    /// Makes and changes the topics. Nothing is done if anything of it is refused.
    ///
    /// # Errors
    ///
    /// [`Refused`](crate::ErrorKind::Refused), naming the topic and what to do: for fewer partitions
    /// than there are and another number of replicas; and, unless that is
    /// [allowed](Self::allow_shrinking), for what keeps or takes less than before. Those of the servers,
    /// with what came before done: a new plan has what is left.
    pub async fn apply(&self) -> Result<()> {
        let mut refusals = self.refusals();
        if !refusals.is_empty() {
            let first = refusals.remove(0);
            return Err(match refusals.len() {
                0 => first,
                others => {
                    first.with_note(format!("{others} more topics are refused: see the plan"))
                }
            });
        }
        for transport in self.transports() {
            let of = |wanted: fn(&TopicAction) -> bool| -> Vec<TopicSpec> {
                let steps = self.steps.iter();
                let steps = steps.filter(|it| it.transport == *transport && wanted(&it.action));
                steps.map(|it| it.wanted.clone()).collect()
            };
            let admin = self.bus.topics().admin(transport)?;
            let new = of(|action| matches!(action, TopicAction::Create(_)));
            if !new.is_empty() {
                admin.ensure_topics(&new).await?;
            }
            let changed = of(|action| matches!(action, TopicAction::Change(_)));
            if !changed.is_empty() {
                admin.alter(&changed).await?;
            }
        }
        Ok(())
    }

    /// The transports that have topics, in the order of their names.
    fn transports(&self) -> Vec<&Text> {
        let mut names: Vec<_> = self.steps.iter().map(|step| &step.transport).collect();
        names.dedup();
        names
    }

    fn count(&self, which: impl Fn(&TopicStep) -> bool) -> usize {
        self.steps.iter().filter(|step| which(step)).count()
    }
}

impl fmt::Display for TopicPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for transport in self.transports() {
            writeln!(f, "{transport}")?;
            let steps = self.steps.iter();
            for step in steps.filter(|step| step.transport == *transport) {
                step.write(f, self.shrinking)?;
            }
        }
        let refused = self.count(|it| !it.refused(self.shrinking).is_empty());
        let changed = self.count(|it| matches!(it.action, TopicAction::Change(_)));
        write!(
            f,
            "{} to make, {} to change, {refused} refused, {} as wanted",
            self.count(|it| matches!(it.action, TopicAction::Create(_))),
            changed - refused,
            self.count(|it| it.action == TopicAction::Keep),
        )
    }
}

impl fmt::Debug for TopicPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicPlan")
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}
