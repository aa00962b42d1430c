use crate::Pattern;
use crate::config::SubscriptionConfig;
use crate::event::Contract;

/// What a subscription handles.
#[derive(Debug, Clone)]
pub(crate) struct Takes {
    /// The types of its typed handlers.
    #[cfg_attr(not(feature = "asyncapi"), allow(dead_code, reason = "for documents"))]
    pub(crate) contracts: Vec<Contract>,
    /// Event types and patterns.
    #[cfg_attr(not(feature = "asyncapi"), allow(dead_code, reason = "for documents"))]
    pub(crate) interests: Vec<Pattern>,
    pub(crate) settings: SubscriptionConfig,
}
