//! What goes wrong, and when.

use std::time::Duration;

use polybus_test_support::{Request, Strike, TcpProxy, Then};
use rustix::process::Signal;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::Failure;
use crate::conductor::Stage;
use crate::journal::Step;
use crate::options::Options;
use crate::server::Down;
use crate::task::{CrashPoint, Kind};

/// A fault of one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    Kill,
    Term,
    Stop,
    KillProducer,
    TermProducer,
    Crash(CrashPoint),
    BrokerKill,
    BrokerStop,
    BrokerPause,
    Cut,
    HalfOpen,
    Latency,
    Reset,
    BreakReply,
    LostReply,
    LostRequest,
    Rebalance,
    Rolling,
    Poison,
    /// An event that ends every process that handles it.
    Deadly,
    Malformed,
    OutOfMemory,
    /// The server forgets everything.
    Wipe,
}

const NAMES: [(&str, Fault); 27] = [
    ("kill", Fault::Kill),
    ("term", Fault::Term),
    ("stop", Fault::Stop),
    ("kill-producer", Fault::KillProducer),
    ("term-producer", Fault::TermProducer),
    (
        "crash-before-effect",
        Fault::Crash(CrashPoint::BeforeEffect),
    ),
    ("crash-after-effect", Fault::Crash(CrashPoint::AfterEffect)),
    ("crash-before-ack", Fault::Crash(CrashPoint::BeforeAck)),
    ("crash-after-ack", Fault::Crash(CrashPoint::AfterAck)),
    ("crash-dead-letter", Fault::Crash(CrashPoint::DeadLetter)),
    ("broker-kill", Fault::BrokerKill),
    ("broker-stop", Fault::BrokerStop),
    ("broker-pause", Fault::BrokerPause),
    ("cut", Fault::Cut),
    ("half-open", Fault::HalfOpen),
    ("latency", Fault::Latency),
    ("reset", Fault::Reset),
    ("break-reply", Fault::BreakReply),
    ("lost-reply", Fault::LostReply),
    ("lost-request", Fault::LostRequest),
    ("rebalance", Fault::Rebalance),
    ("rolling", Fault::Rolling),
    ("poison", Fault::Poison),
    ("deadly", Fault::Deadly),
    ("malformed", Fault::Malformed),
    ("oom", Fault::OutOfMemory),
    ("wipe", Fault::Wipe),
];

/// How long the network holds each piece back.
const LATENCY: Duration = Duration::from_millis(200);

/// The pause between the strikes of one window.
const BETWEEN: Duration = Duration::from_millis(700);

impl Fault {
    pub(crate) fn parse(name: &str) -> Result<Self, Failure> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        let found = found.map(|(_, fault)| *fault);
        found.ok_or_else(|| format!("there is no fault `{name}`; see --help").into())
    }

    pub(crate) fn name(self) -> &'static str {
        let found = NAMES.iter().find(|(_, fault)| *fault == self);
        found.map_or("none", |(name, _)| name)
    }

    /// Those that a kind of server can suffer, but for those that make it lose what it has.
    pub(crate) fn all(kind: Kind) -> Vec<Self> {
        let faults = NAMES.iter().map(|(_, fault)| *fault);
        let possible = |fault: &Self| match fault {
            Self::OutOfMemory => kind == Kind::Redis,
            fault => *fault != Self::Wipe,
        };
        faults.filter(possible).collect()
    }

    /// Whether it breaks the network.
    pub(crate) fn needs_proxy(self) -> bool {
        use Fault::{BreakReply, Cut, HalfOpen, Latency, LostReply, LostRequest, Reset};
        matches!(
            self,
            Cut | HalfOpen | Latency | Reset | BreakReply | LostReply | LostRequest
        )
    }

    /// Whether it may not lead to a duplicate.
    pub(crate) fn is_clean(name: &str) -> bool {
        let clean = [
            "none",
            "term",
            "term-producer",
            "rolling",
            "poison",
            "malformed",
            "latency",
        ];
        clean.contains(&name)
    }
}

/// Breaks things, a window at a time, for as long as the options say.
pub(crate) async fn rage(stage: &mut Stage, options: &Options) -> Result<(), Failure> {
    let mut random = fastrand::Rng::with_seed(options.seed);
    let end = Instant::now() + options.length;
    let mut bag = Vec::new();
    let mut calm = 0;
    while Instant::now() < end {
        // Each fault comes once before any comes again, and every fourth window is without one.
        if bag.is_empty() {
            bag.clone_from(&options.faults);
            random.shuffle(&mut bag);
        }
        calm += 1;
        let fault = match calm % 4 {
            0 => Fault::None,
            _ => bag.pop().unwrap_or(Fault::None),
        };
        let window = Duration::from_secs(random.u64(options.window.clone()));
        stage.note(Step::Window {
            fault: fault.name().to_owned(),
        });
        eprintln!("{} for {} s", fault.name(), window.as_secs());
        let over = Instant::now() + window;
        strike(stage, fault, over, &mut random).await?;
        stage.watch_until(over).await?;
        heal(stage, fault).await?;
        stage.note(Step::Heal {
            fault: fault.name().to_owned(),
        });
        stage.watch_until(Instant::now() + options.heal).await?;
    }
    Ok(())
}

async fn strike(
    stage: &mut Stage,
    fault: Fault,
    over: Instant,
    random: &mut fastrand::Rng,
) -> Result<(), Failure> {
    let victim = random.usize(..stage.consumers.len());
    // One node of several: leader of some partitions, and of some groups.
    let node = random.usize(..stage.server.nodes());
    let consumer = &mut stage.consumers[victim];
    match fault {
        Fault::None => {}
        Fault::Kill => {
            consumer.kill().await?;
            stage.down.push(victim);
        }
        Fault::Term => {
            stage.stop_consumer(victim).await?;
            stage.down.push(victim);
        }
        Fault::Stop => {
            consumer.signal(Signal::STOP);
            stage.halted.push(victim);
        }
        Fault::KillProducer => {
            stage.producer.kill().await?;
            stage.producer_down = true;
        }
        Fault::TermProducer => {
            stage.stop_producer().await?;
            stage.producer_down = true;
        }
        Fault::Crash(point) => crash(stage, victim, point, over).await?,
        Fault::BrokerKill => stage.server.take_down(Down::Killed, node).await?,
        Fault::BrokerStop => stage.server.take_down(Down::Stopped, node).await?,
        Fault::BrokerPause => stage.server.take_down(Down::Paused, node).await?,
        Fault::Cut => stage.server.proxies.iter().for_each(TcpProxy::cut),
        Fault::HalfOpen => stage.server.proxies[node].half_open(),
        Fault::Latency => stage.server.proxies.iter().for_each(|it| it.delay(LATENCY)),
        Fault::OutOfMemory => stage.server.take_down(Down::Starved, node).await?,
        Fault::Wipe => stage.server.wipe().await?,
        Fault::Poison => stage.poison(true).await?,
        Fault::Deadly => stage.deadly().await?,
        Fault::Reset | Fault::BreakReply | Fault::LostReply | Fault::LostRequest => {
            again(stage, fault, node, over).await?;
        }
        Fault::Rebalance => rebalance(stage, over, random).await?,
        Fault::Rolling => rolling(stage).await?,
        Fault::Malformed => malformed(stage, over).await?,
    }
    Ok(())
}

/// Ends everything that a window may have left broken.
async fn heal(stage: &mut Stage, fault: Fault) -> Result<(), Failure> {
    if matches!(fault, Fault::Poison | Fault::Crash(CrashPoint::DeadLetter)) {
        stage.poison(false).await?;
    }
    stage.server.proxies.iter().for_each(TcpProxy::mend);
    for victim in std::mem::take(&mut stage.halted) {
        stage.consumers[victim].signal(Signal::CONT);
    }
    stage.server.restore().await?;
    stage.down.clear();
    stage.producer_down = false;
    Ok(())
}

/// Lets a consumer end itself at a point of its work.
async fn crash(
    stage: &mut Stage,
    victim: usize,
    point: CrashPoint,
    over: Instant,
) -> Result<(), Failure> {
    stage.stop_consumer(victim).await?;
    if point == CrashPoint::DeadLetter {
        stage.poison(true).await?;
    }
    let consumer = &mut stage.consumers[victim];
    consumer.start(Some(point))?;
    consumer
        .ended(over.saturating_duration_since(Instant::now()))
        .await?;
    Ok(())
}

/// Breaks the network again and again at a point of a conversation.
async fn again(stage: &mut Stage, fault: Fault, node: usize, over: Instant) -> Result<(), Failure> {
    let request = match stage.kind {
        Kind::Kafka => Request::Kafka(0),
        Kind::Redis => Request::Containing(b"XADD"),
    };
    while Instant::now() < over {
        let strike = match fault {
            Fault::LostReply => Strike::LoseReply,
            Fault::LostRequest => Strike::LoseRequest,
            Fault::BreakReply => Strike::BreakReply(6),
            _ => {
                stage.server.proxies[node].reset();
                stage.watch_until(Instant::now() + BETWEEN).await?;
                continue;
            }
        };
        let struck = stage.server.proxies[node].strike(request, strike, Then::GoOn);
        // Nothing may be published just now.
        let _ = timeout(BETWEEN, struck.happened()).await;
        stage.watch_until(Instant::now() + BETWEEN).await?;
    }
    Ok(())
}

/// Members come and go.
async fn rebalance(
    stage: &mut Stage,
    over: Instant,
    random: &mut fastrand::Rng,
) -> Result<(), Failure> {
    while Instant::now() < over {
        let victim = random.usize(..stage.consumers.len());
        if random.bool() {
            stage.consumers[victim].kill().await?;
        } else {
            stage.stop_consumer(victim).await?;
        }
        stage.consumers[victim].start(None)?;
        stage.watch_until(Instant::now() + 2 * BETWEEN).await?;
    }
    Ok(())
}

/// Each consumer in turn ends in good order and begins again.
async fn rolling(stage: &mut Stage) -> Result<(), Failure> {
    for index in 0..stage.consumers.len() {
        stage.stop_consumer(index).await?;
        stage.consumers[index].start(None)?;
        sleep(BETWEEN).await;
    }
    Ok(())
}

async fn malformed(stage: &mut Stage, over: Instant) -> Result<(), Failure> {
    for number in 0..5 {
        let value = format!("malformed-{}-{number}", crate::journal::now());
        stage.server.write_malformed(&stage.topic, &value).await?;
        stage.note(Step::Malformed { value });
    }
    sleep_until(over.min(Instant::now() + BETWEEN)).await;
    Ok(())
}
