use std::cmp::Ordering;

use super::*;
use crate::ErrorKind;

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

/// Every sequence of one to `longest` of the words, joined by dots.
fn sequences(words: &[&str], longest: usize) -> Vec<String> {
    let mut all = Vec::new();
    let mut last: Vec<String> = words.iter().map(ToString::to_string).collect();
    for _ in 0..longest {
        all.extend(last.iter().cloned());
        last = last
            .iter()
            .flat_map(|start| words.iter().map(move |word| format!("{start}.{word}")))
            .collect();
    }
    all
}

/// All small patterns over two words.
fn small_patterns() -> Vec<Pattern> {
    sequences(&["a", "b", "+", "*"], 3)
        .iter()
        .map(|text| pattern(text))
        .collect()
}

/// Types over the words of [`small_patterns`] and a word that is in none of them, so long that
/// two of the patterns that have a type in common have one among these.
fn small_types() -> Vec<String> {
    sequences(&["a", "b", "x"], 5)
}

/// What a pattern means, in the words of its definition.
fn means(pattern: &[&str], event_type: &[&str]) -> bool {
    match pattern.split_first() {
        None => event_type.is_empty(),
        Some((&"*", rest)) => (1..=event_type.len()).any(|taken| means(rest, &event_type[taken..])),
        Some((first, rest)) => event_type
            .split_first()
            .is_some_and(|(word, others)| (*first == "+" || first == word) && means(rest, others)),
    }
}

/// For each pattern whether it takes each of the types, by the definition.
fn meanings(patterns: &[Pattern], types: &[String]) -> Vec<Vec<bool>> {
    let split = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
    let types: Vec<_> = types.iter().map(|text| split(text)).collect();
    let row = |pattern: &Pattern| {
        let words: Vec<_> = pattern.as_str().split('.').collect();
        let types = types.iter().map(|words| words.iter().map(String::as_str));
        types
            .map(|event_type| means(&words, &event_type.collect::<Vec<_>>()))
            .collect()
    };
    patterns.iter().map(row).collect()
}

#[test]
fn a_pattern_takes_what_the_brief_says() {
    for (text, event_type, fits) in [
        ("user.*", "user.created", true),
        ("user.*", "user.profile.updated", true),
        ("user.*", "user", false),
        ("user.*", "users.created", false),
        ("*.failed", "order.failed", true),
        ("*.failed", "order.payment.failed", true),
        ("*.failed", "failed", false),
        ("order.+.failed", "order.payment.failed", true),
        ("order.+.failed", "order.failed", false),
        ("order.+.failed", "order.payment.card.failed", false),
        ("*", "user", true),
        ("*", "user.created", true),
        ("+", "user", true),
        ("+", "user.created", false),
        ("user.created", "user.created", true),
        ("user.created", "user.created.twice", false),
        ("user.created", "user", false),
        ("User.*", "user.created", false),
        ("a.*.b.*.c", "a.1.b.2.b.3.c", true),
        ("a.*.b.*.c", "a.b.1.c", false),
        ("*.a.b", "a.a.a.b", true),
        ("ünï.*", "ünï.cöde", true),
    ] {
        assert_eq!(
            pattern(text).matches(event_type),
            fits,
            "{text} {event_type}"
        );
    }
}

#[test]
fn an_empty_segment_of_a_foreign_type_is_a_segment() {
    assert!(pattern("*").matches("a..b"));
    assert!(pattern("a.+.b").matches("a..b"));
    assert!(pattern("*").matches(""));
}

#[test]
fn matching_is_what_the_definition_says_for_all_small_patterns_and_types() {
    let (patterns, types) = (small_patterns(), small_types());
    for (pattern, meanings) in patterns.iter().zip(meanings(&patterns, &types)) {
        for (event_type, fits) in types.iter().zip(meanings) {
            assert_eq!(pattern.matches(event_type), fits, "{pattern} {event_type}");
        }
    }
}

#[test]
fn two_patterns_intersect_exactly_if_a_type_fits_both() {
    let patterns = small_patterns();
    let meanings = meanings(&patterns, &small_types());
    for (left, left_fits) in patterns.iter().zip(&meanings) {
        for (right, right_fits) in patterns.iter().zip(&meanings) {
            let common = left_fits.iter().zip(right_fits).any(|(l, r)| *l && *r);
            assert_eq!(left.intersects(right), common, "{left} {right}");
        }
    }
}

#[test]
fn a_pattern_covers_another_only_if_it_takes_all_its_types() {
    let patterns = small_patterns();
    let meanings = meanings(&patterns, &small_types());
    let mut missed = Vec::new();
    for (wide, wide_fits) in patterns.iter().zip(&meanings) {
        for (narrow, narrow_fits) in patterns.iter().zip(&meanings) {
            let subset = narrow_fits.iter().zip(wide_fits).all(|(n, w)| !n || *w);
            assert!(subset || !wide.covers(narrow), "{wide} {narrow}");
            if subset && !wide.covers(narrow) {
                missed.push((wide.as_str(), narrow.as_str()));
            }
        }
    }
    // What is missed has `*` beside a wildcard: the same set in another spelling.
    let doubled = |text: &str| ["*.+", "+.*", "*.*"].iter().any(|two| text.contains(two));
    assert!(missed.iter().all(|(wide, _)| doubled(wide)), "{missed:?}");
}

#[test]
fn the_most_specific_pattern_sorts_first() {
    let sorted = [
        "order.payment.failed",
        // The two agree as far as both go: the longer is first.
        "order.payment.*",
        "order.payment",
        "order.+.failed",
        "order.+",
        "order.*.failed",
        "order.*",
        "+.payment.failed",
        "+.failed",
        "+",
        "*.payment.failed",
        "*.failed",
        "*.+",
        "*",
    ];
    let mut patterns: Vec<_> = sorted.iter().rev().map(|text| pattern(text)).collect();
    patterns.sort_by(Pattern::cmp_specificity);
    let texts: Vec<_> = patterns.iter().map(Pattern::as_str).collect();
    assert_eq!(texts, sorted);
    assert_eq!(
        pattern("user.*").cmp_specificity(&pattern("deal.*")),
        Ordering::Equal
    );
}

#[test]
fn a_wrong_pattern_is_refused_with_the_right_spelling() {
    for (text, what, advice) in [
        ("", "the pattern is empty", "write `*` for every event type"),
        ("user.**", "`**` is not a wildcard here", "write `user.*`:"),
        ("**", "`**` is not a wildcard here", "write `*`:"),
        ("user.#", "`#` is not a wildcard here", "write `user.*`:"),
        (
            "#.failed",
            "`#` is not a wildcard here",
            "write `*.failed`:",
        ),
        ("user.>", "`>` is not a wildcard here", "write `user.*`:"),
        (
            "a..b",
            "a segment between its dots is empty",
            "write a word",
        ),
        (".a", "a segment between its dots is empty", "no dot"),
        ("a.", "a segment between its dots is empty", "no dot"),
        (".", "a segment between its dots is empty", "no dot"),
        (
            "user.cre*",
            "`cre*` has a wildcard within a word",
            "`user.*`",
        ),
        ("user*", "`user*` has a wildcard within a word", "`user.*`"),
        ("a.b+", "`b+` has a wildcard within a word", "`+` for"),
        ("a.***", "`***` has a wildcard within a word", "`*` for"),
        (
            "a. b",
            "the segment ` b` begins or ends with a space",
            "remove the space",
        ),
    ] {
        let error = Pattern::parse(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidPattern, "{text}");
        assert!(error.message().contains(what), "{error}");
        assert!(error.notes()[0].contains(advice), "{error}");
        assert!(text.is_empty() || error.message().contains(&format!("`{text}`")));
    }
}

#[test]
fn a_pattern_reads_back_as_it_was_written() {
    let text = "order.+.*";
    let parsed: Pattern = text.parse().unwrap();
    assert_eq!(parsed.to_string(), text);
    assert_eq!(parsed, pattern(text));
    assert!(!parsed.is_literal());
    assert!(pattern("order.payment").is_literal());
}

#[test]
fn many_wildcards_take_no_exponential_time() {
    // Some 2^60 ways to share the segments out; only what is not tried can end.
    let stars = vec!["*"; 60].join(".");
    let event_type = vec!["a"; 120].join(".");
    let never = pattern(&format!("{stars}.b"));
    assert!(!never.matches(&event_type));
    assert!(never.intersects(&pattern(&format!("{stars}.+"))));
    assert!(!never.covers(&pattern(&stars)));
    let mut map = PatternMap::new();
    map.insert(never, ()).unwrap();
    assert_eq!(map.find(&event_type), None);
}

#[test]
fn matching_allocates_nothing() {
    let text = "order.*.payment.+.failed";
    let counted = allocation_counter::measure(|| assert!(Pattern::parse(text).is_ok()));
    assert!(counted.count_total > 0, "the counter counts");

    let pattern = pattern(text);
    let event_type = "order.eu.payment.1.payment.card.failed";
    let counted = allocation_counter::measure(|| {
        assert!(pattern.matches(event_type));
        assert!(!pattern.matches("order.eu.payment"));
    });
    assert_eq!(counted.count_total, 0);
}

#[test]
fn a_map_finds_what_a_sorted_list_would() {
    let types = sequences(&["a", "b", "x"], 4);
    let patterns = small_patterns();
    // Every third of the patterns, from several starts and in two orders: sets that overlap in
    // many ways.
    for start in 0..12 {
        let mut chosen: Vec<_> = patterns.iter().skip(start).step_by(3 + start).collect();
        if start % 2 == 0 {
            chosen.reverse();
        }
        let mut map = PatternMap::new();
        for (index, pattern) in chosen.iter().enumerate() {
            map.insert((*pattern).clone(), index).unwrap();
        }
        let mut sorted: Vec<_> = chosen.iter().enumerate().collect();
        sorted.sort_by(|left, right| left.1.cmp_specificity(right.1));
        for event_type in &types {
            let fit = sorted
                .iter()
                .filter(|(_, pattern)| pattern.matches(event_type));
            let expected: Vec<_> = fit.map(|(index, _)| *index).collect();
            let found = map.find_all(event_type);
            let found: Vec<_> = found.into_iter().map(|(_, index)| *index).collect();
            assert_eq!(found, expected, "{event_type}");
            let first = map.find(event_type).map(|(_, index)| *index);
            assert_eq!(first, expected.first().copied(), "{event_type}");
        }
    }
}

#[test]
fn a_map_finds_every_pattern_that_covers_another() {
    let patterns = small_patterns();
    let mut map = PatternMap::new();
    for (index, pattern) in patterns.iter().enumerate() {
        map.insert(pattern.clone(), index).unwrap();
    }
    for narrow in &patterns {
        let mut found: Vec<_> = map.covering(narrow).iter().map(|(_, i)| **i).collect();
        found.sort_unstable();
        let all = patterns.iter().enumerate();
        let covering = all.filter(|(_, wide)| wide.covers(narrow));
        let expected: Vec<_> = covering.map(|(index, _)| index).collect();
        assert_eq!(found, expected, "{narrow}");
    }
}

#[test]
fn a_map_keeps_the_first_value_of_a_pattern() {
    let mut map = PatternMap::default();
    assert!(map.is_empty());
    assert_eq!(map.insert(pattern("a.*"), 1), Ok(()));
    assert_eq!(map.insert(pattern("a.*"), 2), Err((&1, 2)));
    assert_eq!(map.len(), 1);
    assert_eq!(map.iter().collect::<Vec<_>>(), [(&pattern("a.*"), &1)]);
    assert_eq!(format!("{map:?}"), "{Pattern(a.*): 1}");
}
