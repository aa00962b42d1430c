//! The cases, one module for each theme.

mod admin;
mod closing;
mod content;
mod crashes;
mod delivery;
mod faults;
mod groups;
mod idempotency;
mod order;
mod pressure;
mod publishing;
mod replacing;
mod reset;
mod settling;
mod start;
mod topics;
mod transactions;
mod undecodable;

use crate::case::Case;

/// A line of the table: the function of the case, what it proves, and what it needs beyond the
/// contract.
macro_rules! case {
    ($name:ident, $about:literal) => {
        case!($name, $about, needs: [])
    };
    ($name:ident, $about:literal, needs: [$($need:expr),*]) => {
        $crate::case::Case::new(stringify!($name), $about, &[$($need),*], |scene| {
            Box::pin($name(scene))
        })
    };
}

use case;

/// All cases of the suite, in the order in which they run: those that disrupt the server last.
///
/// ```
/// for case in polybus_conformance::cases() {
///     println!("{:<45} {}", case.name(), case.about());
/// }
/// assert!(polybus_conformance::cases().count() >= 24);
/// ```
pub fn cases() -> impl Iterator<Item = &'static Case> {
    const THEMES: &[&[Case]] = &[
        delivery::CASES,
        publishing::CASES,
        transactions::CASES,
        closing::CASES,
        content::CASES,
        groups::CASES,
        order::CASES,
        start::CASES,
        reset::CASES,
        settling::CASES,
        crashes::CASES,
        undecodable::CASES,
        pressure::CASES,
        admin::CASES,
        topics::CASES,
        replacing::CASES,
        idempotency::CASES,
        faults::CASES,
    ];
    THEMES.iter().copied().flatten()
}
