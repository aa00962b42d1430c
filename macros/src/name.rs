//! What event types and versions may look like.

/// Checks an event type: segments divided by dots, none empty, nothing that means something in
/// a pattern.
pub(crate) fn check_event_type(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("an event type can't be empty: write it as `user.created`".to_owned());
    }
    if let Some(space) = name.chars().find(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!(
            "the event type `{}` contains {space:?}: divide its segments by dots, as `user.created`",
            name.escape_debug()
        ));
    }
    if let Some(wildcard) = name.chars().find(|c| "*+#>".contains(*c)) {
        return Err(format!(
            "the event type `{name}` contains the wildcard `{wildcard}`: an event has one type; \
             patterns belong to routes and handlers"
        ));
    }
    if name.split('.').any(str::is_empty) {
        return Err(format!(
            "the event type `{name}` has an empty segment: one dot stands between two segments, \
             none at either end"
        ));
    }
    Ok(())
}

/// Checks a version: `MAJOR.MINOR.PATCH`, numbers without leading zeros.
pub(crate) fn check_version(version: &str) -> Result<(), String> {
    let is_number = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let leading_zero = part.len() > 1 && part.starts_with('0');
        digits && !leading_zero && part.parse::<u64>().is_ok()
    };
    let parts: Vec<_> = version.split('.').collect();
    if parts.len() == 3 && parts.iter().all(|part| is_number(part)) {
        return Ok(());
    }
    Err(format!(
        "`{}` is not a version: write three numbers `MAJOR.MINOR.PATCH`, as `1.0.0`",
        version.escape_debug()
    ))
}

/// The event type that a struct's name suggests: `UserCreated` is `user.created`.
pub(crate) fn suggest_event_type(struct_name: &str) -> String {
    let mut suggestion = String::new();
    let mut word_ended = false;
    for character in struct_name.chars() {
        if character == '_' {
            word_ended = true;
            continue;
        }
        if (word_ended || character.is_uppercase()) && !suggestion.is_empty() {
            suggestion.push('.');
        }
        suggestion.extend(character.to_lowercase());
        word_ended = false;
    }
    suggestion
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_types_are_segments_divided_by_dots() {
        for name in [
            "ping",
            "user.created",
            "deal.status.changed",
            "a-b.c_d.v2",
            "größe.ändern",
        ] {
            assert_eq!(check_event_type(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_bad_event_type_is_told_what_is_wrong_with_it() {
        for (name, why) in [
            ("", "can't be empty"),
            (".", "empty segment"),
            ("user.", "empty segment"),
            (".user", "empty segment"),
            ("user..created", "empty segment"),
            ("user created", "contains ' '"),
            ("user.\tcreated", r"contains '\t'"),
            ("user.created\n", r"contains '\n'"),
            ("user.\u{0}", r"contains '\0'"),
            ("user.*", "wildcard `*`"),
            ("user.+", "wildcard `+`"),
            ("user.#", "wildcard `#`"),
            ("user.>", "wildcard `>`"),
            ("user.creat*", "wildcard `*`"),
        ] {
            let error = check_event_type(name).unwrap_err();
            assert!(error.contains(why), "{name:?}: {error}");
        }
    }

    #[test]
    fn versions_are_three_numbers() {
        for version in ["0.0.0", "1.0.0", "10.20.30", "1.0.18446744073709551615"] {
            assert_eq!(check_version(version), Ok(()), "{version}");
        }
        for version in [
            "",
            "1",
            "1.0",
            "1.0.0.0",
            "v1.0.0",
            "1.0.0-beta",
            "1.0.0+7",
            "01.0.0",
            "1..0",
            "1.0.",
            "1.0.-1",
            "1.0.x",
            " 1.0.0",
            "1.0.18446744073709551616",
        ] {
            let error = check_version(version).unwrap_err();
            assert!(error.contains("MAJOR.MINOR.PATCH"), "{version:?}: {error}");
        }
    }

    #[test]
    fn the_suggestion_is_made_of_the_words_of_the_name() {
        for (name, suggestion) in [
            ("UserCreated", "user.created"),
            ("DealStatusChanged", "deal.status.changed"),
            ("Ping", "ping"),
            ("user_created", "user.created"),
            ("_Odd_Name_", "odd.name"),
        ] {
            assert_eq!(suggest_event_type(name), suggestion);
        }
    }
}
