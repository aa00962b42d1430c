//! What a user is told about a decision.

use super::*;

#[test]
fn an_explanation_shows_the_decision_and_the_losers() {
    let routes = [
        ("*", "kafka", "all"),
        ("user.*", "redis", "{1}-events"),
        ("user.+", "redis", "flat"),
        ("deal.*", "kafka", "deals"),
    ];
    let explanation = table(&routes, Some(("kafka", "rest"))).explain("user.created");
    assert_eq!(
        explanation.to_string(),
        "user.created: transport `redis`, topic `flat`, by `user.+` (polybus.toml:6)\
         \n  loses: transport `redis`, topic `user-events`, by `user.*` (polybus.toml:5)\
         \n  loses: transport `kafka`, topic `all`, by `*` (polybus.toml:4)\
         \n  loses: transport `kafka`, topic `rest`, by the default (polybus.toml:10)"
    );
    let decision = explanation.decision.unwrap();
    assert_eq!(decision.pattern, Some(pattern("user.+")));
    assert_eq!(explanation.losers.len(), 3);
}

#[test]
fn a_type_that_nothing_takes_is_explained() {
    let explanation = table(&BRIEF, None).explain("order.created");
    assert_eq!(explanation.to_string(), "order.created: no route takes it");
    assert!(explanation.decision.is_none());
}

#[test]
fn the_decision_is_what_resolve_does() {
    let table = table(&BRIEF, Some(("kafka", "rest.{1}")));
    for event_type in ["user.a", "user", "deal.a.b", "x"] {
        let decision = table.explain(event_type).decision.unwrap();
        let resolved = table.resolve(event_type).unwrap();
        assert_eq!(decision.transport, resolved.transport);
        assert_eq!(decision.topic.as_ref(), Some(&resolved.topic));
        assert_eq!(decision.pattern, resolved.pattern);
    }
}
