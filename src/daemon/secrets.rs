//! Where the values of a build's secrets come from.

use async_trait::async_trait;

use crate::engine::EngineError;
use crate::engine::environment::Secrets;
use crate::store::builds::BuildRequest;

/// Gives a build the secrets that it may have.
#[async_trait]
pub trait SecretSource: Send + Sync {
    /// Values by name. A build that may not have a secret does not get it.
    ///
    /// # Errors
    /// If they cannot be read now; it is tried again.
    async fn for_build(&self, request: &BuildRequest) -> Result<Secrets, EngineError>;
}

/// There are none.
pub struct NoSecrets;

#[async_trait]
impl SecretSource for NoSecrets {
    async fn for_build(&self, _: &BuildRequest) -> Result<Secrets, EngineError> {
        Ok(Secrets::default())
    }
}
