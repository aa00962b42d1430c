//! Finding the request that a strike waits for, and its answer.

use tokio::sync::oneshot;

use crate::proxy::{Request, Shared, Strike, Then};

/// Length, `api_key`, `api_version`, correlation id.
const KAFKA_REQUEST: usize = 12;

/// Length, correlation id.
const KAFKA_REPLY: usize = 8;

/// A strike that was ordered.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) request: Request,
    pub(crate) strike: Strike,
    pub(crate) then: Then,
    pub(crate) happened: oneshot::Sender<()>,
}

/// What was seen of one connection.
#[derive(Debug)]
pub(crate) struct Sight {
    requests: Frames,
    replies: Frames,
    /// The end of what the client said, shorter than the bytes that are looked for.
    tail: Vec<u8>,
    /// The strike against this connection, and the bytes of the answer that still pass.
    struck: Option<(Plan, Answer)>,
}

#[derive(Debug)]
enum Answer {
    /// Comes in the frame of this correlation id.
    Numbered([u8; 4], usize),
    /// Is what comes now: so many bytes of it pass.
    Passes(usize),
}

impl Default for Sight {
    fn default() -> Self {
        Self {
            requests: Frames::new(KAFKA_REQUEST),
            replies: Frames::new(KAFKA_REPLY),
            tail: Vec::new(),
            struck: None,
        }
    }
}

impl Sight {
    /// Looks at what the client says. Gives how much of it passes, if the connection breaks here.
    pub(crate) fn request(&mut self, chunk: &[u8], shared: &Shared) -> Option<usize> {
        // Frames are followed from the first byte on, or they are never found.
        let mut frames = Vec::new();
        self.requests.feed(chunk, |at, head| {
            let key = u16::from_be_bytes([head[4], head[5]]);
            frames.push((at, key, [head[8], head[9], head[10], head[11]]));
        });
        if self.struck.is_some() {
            return None;
        }
        let wanted = shared.planned()?;
        let (at, number) = match wanted {
            Request::Any => (0, None),
            Request::Containing(bytes) => (self.find(chunk, bytes)?, None),
            Request::Kafka(key) => {
                let found = frames.into_iter().find(|(_, found, _)| *found == key)?;
                (found.0, Some(found.2))
            }
        };
        let plan = shared.take_plan(|plan| plan.request == wanted)?;
        let passes = match plan.strike {
            Strike::LoseRequest => None,
            Strike::LoseReply => Some(0),
            Strike::BreakReply(bytes) => Some(bytes),
        };
        let answer = match (number, passes) {
            (Some(number), Some(passes)) => Answer::Numbered(number, passes),
            (_, passes) => Answer::Passes(passes.unwrap_or(0)),
        };
        self.struck = Some((plan, answer));
        match passes {
            None => Some(at),
            Some(_) => None,
        }
    }

    /// Looks at what the server says. Gives how much of it passes, if the connection breaks here.
    pub(crate) fn reply(&mut self, chunk: &[u8]) -> Option<usize> {
        let mut frames = Vec::new();
        self.replies.feed(chunk, |at, head| {
            frames.push((at, [head[4], head[5], head[6], head[7]]));
        });
        let (_, answer) = self.struck.as_mut()?;
        let (start, passes) = match *answer {
            Answer::Passes(passes) => (0, passes),
            Answer::Numbered(number, passes) => {
                let found = frames.into_iter().find(|(_, found)| *found == number)?;
                (found.0, passes)
            }
        };
        let end = start + passes;
        if end <= chunk.len() {
            return Some(end);
        }
        *answer = Answer::Passes(end - chunk.len());
        None
    }

    /// The strike that broke this connection, once.
    pub(crate) fn struck(&mut self) -> Option<Plan> {
        self.struck.take().map(|(plan, _)| plan)
    }

    /// Where the bytes begin in a chunk, or 0 if they began in the one before.
    fn find(&mut self, chunk: &[u8], bytes: &[u8]) -> Option<usize> {
        let before = self.tail.len();
        self.tail.extend_from_slice(chunk);
        let found = self.tail.windows(bytes.len()).position(|it| it == bytes);
        let keep = self.tail.len().saturating_sub(bytes.len() - 1);
        self.tail.drain(..keep);
        found.map(|at| at.saturating_sub(before))
    }
}

/// Finds the frames of Kafka's protocol in a stream that comes in pieces: four bytes of length, and
/// that many behind them.
#[derive(Debug)]
struct Frames {
    /// How many bytes of a frame are shown.
    shown: usize,
    head: Vec<u8>,
    /// The bytes behind the head.
    left: usize,
}

impl Frames {
    fn new(shown: usize) -> Self {
        Self {
            shown,
            head: Vec::with_capacity(shown),
            left: 0,
        }
    }

    /// Calls `seen` for each frame whose head is complete, with the place in the chunk where it
    /// begins (0 if that was in one before) and the head.
    fn feed(&mut self, mut chunk: &[u8], mut seen: impl FnMut(usize, &[u8])) {
        let whole = chunk.len();
        while !chunk.is_empty() {
            if self.left > 0 {
                let skipped = self.left.min(chunk.len());
                self.left -= skipped;
                chunk = &chunk[skipped..];
                continue;
            }
            let taken = (self.shown - self.head.len()).min(chunk.len());
            self.head.extend_from_slice(&chunk[..taken]);
            chunk = &chunk[taken..];
            if self.head.len() == self.shown {
                seen((whole - chunk.len()).saturating_sub(self.shown), &self.head);
                let [a, b, c, d, ..] = self.head[..] else {
                    unreachable!("a head has more than four bytes")
                };
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                self.left = (length + 4).saturating_sub(self.shown);
                self.head.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Frames;

    fn frame(body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&length[..], body].concat()
    }

    #[test]
    fn frames_are_found_however_the_stream_is_cut() {
        let stream = [frame(b"abcd"), frame(b"efghijkl"), frame(b"mnop!")].concat();
        for piece in 1..=stream.len() {
            let mut frames = Frames::new(8);
            let mut found = Vec::new();
            for chunk in stream.chunks(piece) {
                frames.feed(chunk, |_, head| found.push(head[4..].to_vec()));
            }
            assert_eq!(found, [b"abcd", b"efgh", b"mnop"], "pieces of {piece}");
        }
    }

    #[test]
    fn a_frame_says_where_it_begins() {
        let stream = [frame(b"abcd"), frame(b"efghijkl")].concat();
        let mut places = Vec::new();
        Frames::new(8).feed(&stream, |at, _| places.push(at));
        assert_eq!(places, [0, 8]);
    }
}
