//! One picture of a run: what was handled each second, how far the group was behind, duplicates, and
//! when something was broken.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use crate::journal::Step;
use crate::judge::Facts;
use crate::report::Verdict;

const WIDTH: f64 = 1_200.0;
const HEIGHT: f64 = 360.0;
const MARGIN: f64 = 50.0;

pub(crate) fn svg(facts: &Facts, verdict: &Verdict) -> String {
    let Series {
        handled,
        twice,
        lag,
        end,
    } = Series::of(facts);
    let x = |second: f64| MARGIN + second / end as f64 * (WIDTH - 2.0 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    for window in &verdict.windows {
        let (from, to) = (x(window.begin), x(window.heal.min(end as f64)));
        let _ = writeln!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{MARGIN}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#eee\"/>\
             <text transform=\"translate({:.1} {:.1}) rotate(-40)\">{}</text>",
            (to - from).max(0.0),
            HEIGHT - 2.0 * MARGIN,
            from + 4.0,
            MARGIN - 2.0,
            window.fault
        );
    }
    let most = top(&handled).max(top(&twice));
    line(&mut svg, &handled, "#1f6fb2", most, &x);
    line(&mut svg, &lag, "#d98c00", top(&lag), &x);
    for (second, count) in &twice {
        let height = *count as f64 / most as f64 * (HEIGHT - 2.0 * MARGIN);
        let _ = writeln!(
            svg,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"3\" height=\"{height:.1}\" fill=\"#c0392b\"/>",
            x(*second as f64),
            HEIGHT - MARGIN - height
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{MARGIN}\" y=\"{:.1}\">{end} s. Blue: handled a second, at most {most}. Orange: \
         not settled, at most {}. Red: duplicates. Grey: something is broken.</text>\n</svg>",
        HEIGHT - 15.0,
        top(&lag)
    );
    svg
}

/// What is drawn, by seconds since the run began.
struct Series {
    handled: BTreeMap<u64, u64>,
    twice: BTreeMap<u64, u64>,
    lag: BTreeMap<u64, u64>,
    end: u64,
}

impl Series {
    fn of(facts: &Facts) -> Self {
        let begin = facts.begin();
        let second = |time: u64| time.saturating_sub(begin) / 1_000;
        let (mut handled, mut twice) = (BTreeMap::new(), BTreeMap::new());
        let mut seen = HashSet::new();
        for (time, id) in &facts.effects {
            *handled.entry(second(*time)).or_default() += 1;
            if !seen.insert(id) {
                *twice.entry(second(*time)).or_default() += 1;
            }
        }
        let lag = facts.conductor.iter().filter_map(|line| match &line.step {
            Step::Committed { lag, .. } | Step::Acknowledged { lag, .. } => {
                Some((second(line.time), *lag))
            }
            _ => None,
        });
        let lag: BTreeMap<u64, u64> = lag.collect();
        let end = handled.keys().chain(lag.keys()).max();
        let end = end.copied().unwrap_or(1).max(1);
        for second in 0..=end {
            handled.entry(second).or_default();
        }
        Self {
            handled,
            twice,
            lag,
            end,
        }
    }
}

fn top(values: &BTreeMap<u64, u64>) -> u64 {
    values.values().max().copied().unwrap_or(1).max(1)
}

fn line(
    svg: &mut String,
    values: &BTreeMap<u64, u64>,
    colour: &str,
    most: u64,
    x: &impl Fn(f64) -> f64,
) {
    let _ = write!(svg, "<polyline fill=\"none\" stroke=\"{colour}\" points=\"");
    for (second, value) in values {
        let height = *value as f64 / most as f64 * (HEIGHT - 2.0 * MARGIN);
        let _ = write!(
            svg,
            "{:.1},{:.1} ",
            x(*second as f64),
            HEIGHT - MARGIN - height
        );
    }
    svg.push_str("\"/>\n");
}
