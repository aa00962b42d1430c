use async_trait::async_trait;
use polybus_core::Result;
use polybus_core::transport::{DynTransport, TransportConfig, TransportFactory};

use crate::{MemoryConfig, MemoryTransport};

/// Makes a memory transport with a broker of its own for each section of `kind = "memory"`,
/// whose settings are those of [`MemoryConfig`].
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct MemoryFactory;

impl MemoryFactory {
    /// The factory.
    pub const fn new() -> Self {
        Self
    }
}

#[async_trait]
impl TransportFactory for MemoryFactory {
    fn kind(&self) -> &str {
        "memory"
    }

    async fn connect(&self, config: TransportConfig) -> Result<DynTransport> {
        let named = |error: polybus_core::Error| {
            error
                .with_operation("connect")
                .with_transport(config.name.clone())
        };
        let settings: MemoryConfig = config.section.parse().map_err(named)?;
        let transport = MemoryTransport::with_config(&settings).map_err(named)?;
        Ok(DynTransport::new(transport.named(config.name)))
    }
}
