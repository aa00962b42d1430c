//! How patterns relate to event types and to each other.

use super::Segment;

/// Goes through pattern and type side by side; where they part, the last `*` takes one segment
/// more. Going back to the last `*` alone is enough: what an earlier one could take instead,
/// the last one can take too.
pub(super) fn matches(segments: &[Segment], event_type: &str) -> bool {
    let mut words = event_type.split('.');
    let mut index = 0;
    let mut last_many = None;
    loop {
        let mut after = words.clone();
        match (segments.get(index), after.next()) {
            (None, None) => return true,
            (Some(_), None) => return false,
            (Some(segment), Some(word)) if segment.takes(word) => {
                words = after;
                index += 1;
                if *segment == Segment::Many {
                    last_many = Some((index, words.clone()));
                }
                continue;
            }
            _ => {}
        }
        let Some((after_many, mut taken)) = last_many else {
            return false;
        };
        if taken.next().is_none() {
            return false;
        }
        words = taken.clone();
        index = after_many;
        last_many = Some((after_many, taken));
    }
}

/// Whether a type fits both, by the product of the two patterns as automata, from the end.
pub(super) fn intersect(left: &[Segment], right: &[Segment]) -> bool {
    let together = |left: &Segment, right: &Segment| match (left, right) {
        (Segment::Literal(left), Segment::Literal(right)) => left == right,
        _ => true,
    };
    let mut table = Table::new(left.len(), right.len());
    table.set(left.len(), right.len(), true);
    for (i, own) in left.iter().enumerate().rev() {
        for (j, other) in right.iter().enumerate().rev() {
            let fits = together(own, other)
                && (table.at(i + 1, j + 1)
                    || *own == Segment::Many && table.at(i, j + 1)
                    || *other == Segment::Many && table.at(i + 1, j));
            table.set(i, j, fits);
        }
    }
    table.at(0, 0)
}

/// Whether the wide pattern can follow the narrow one step by step, whatever types it takes.
pub(super) fn covers(wide: &[Segment], narrow: &[Segment]) -> bool {
    let mut table = Table::new(narrow.len(), wide.len());
    table.set(narrow.len(), wide.len(), true);
    for (i, own) in narrow.iter().enumerate().rev() {
        for (j, other) in wide.iter().enumerate().rev() {
            let (next, stay) = (table.at(i + 1, j + 1), table.at(i + 1, j));
            let follows = match (own, other) {
                (Segment::Literal(own), Segment::Literal(other)) => own == other && next,
                (Segment::One | Segment::Many, Segment::Literal(_)) => false,
                (Segment::Literal(_) | Segment::One, Segment::One) => next,
                (Segment::Many, Segment::One) => next && table.at(i, j + 1),
                // While the narrow `*` repeats, the wide one repeats with it.
                (_, Segment::Many) => next || stay,
            };
            table.set(i, j, follows);
        }
    }
    table.at(0, 0)
}

/// What holds for each pair of a rest of one pattern and a rest of another.
struct Table {
    width: usize,
    cells: Vec<bool>,
}

impl Table {
    fn new(left: usize, right: usize) -> Self {
        Self {
            width: right + 1,
            cells: vec![false; (left + 1) * (right + 1)],
        }
    }

    fn at(&self, left: usize, right: usize) -> bool {
        self.cells[left * self.width + right]
    }

    fn set(&mut self, left: usize, right: usize, value: bool) {
        self.cells[left * self.width + right] = value;
    }
}
