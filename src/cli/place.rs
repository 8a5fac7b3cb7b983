//! Where a command works: on the data folder of this machine, or on a server.

use std::path::{Path, PathBuf};

use super::exit::Usage;
use super::{login, text};
use crate::client::{Client, ClientError};

/// Where.
#[derive(Debug)]
pub enum Place {
    /// On this machine, with this data folder if one is given.
    Here(Option<PathBuf>),
    /// On a server.
    There(Client),
}

/// A server that was named, and how.
#[derive(Debug, Clone)]
pub struct Named {
    /// Its address.
    pub server: String,
    /// By `--server`, not by the environment.
    pub by_flag: bool,
}

impl Place {
    /// On the server if one is named, else here.
    ///
    /// # Errors
    /// If the address or the kept token is not good.
    pub fn choose(data: Option<&Path>, server: Option<&Named>) -> anyhow::Result<Self> {
        match server {
            None => Ok(Place::Here(data.map(Path::to_owned))),
            Some(named) => Ok(Place::There(connect(&named.server)?)),
        }
    }

    /// The server.
    ///
    /// # Errors
    /// [`Usage`] if none is named.
    pub fn server(self, command: &str) -> anyhow::Result<Client> {
        match self {
            Place::There(client) => Ok(client),
            Place::Here(_) => Err(Usage(format!(
                "`{command}` asks a daemon: name it by --server URL or ORCHESTRATOR_SERVER (`orchestrator serve` says its \
                 address, and `orchestrator login URL` keeps a token for it)"
            ))
            .into()),
        }
    }
}

/// A client with the token of the environment, else the one that was kept by `login`.
///
/// # Errors
/// If the address or the kept token is not good.
pub fn connect(server: &str) -> anyhow::Result<Client> {
    let token = match std::env::var("ORCHESTRATOR_TOKEN") {
        Ok(token) if !token.trim().is_empty() => Some(token.trim().to_owned()),
        Ok(_) | Err(_) => login::kept(crate::client::address(server)?.as_str())?,
    };
    Ok(Client::new(server, token.as_deref())?)
}

/// Why a command works on this machine alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Here {
    /// It is about this machine: nobody would take it for a question to a server.
    ByNature,
    /// It reads this machine's data folder, and a server has the like.
    Reads,
    /// It changes this machine's data folder, and a server has the like.
    Changes,
}

/// Commands that work here alone take no `--server`. If the environment names a server, whoever reads is told what is read, and
/// whoever changes something has to say that it is meant (`chosen`: the data folder was named on the command line).
///
/// # Errors
/// [`Usage`].
pub fn here_only(server: Option<&Named>, command: &str, here: Here, chosen: bool) -> Result<(), Usage> {
    let Some(named) = server else { return Ok(()) };
    if named.by_flag {
        return Err(Usage(format!("`{command}` works on this machine alone: leave --server away")));
    }
    match here {
        Here::ByNature => {}
        Here::Reads | Here::Changes if chosen => {}
        Here::Reads => text::remark(&format!(
            "ORCHESTRATOR_SERVER is set, but `{command}` asks no server: this is of this machine's data folder"
        )),
        Here::Changes => {
            return Err(Usage(format!(
                "ORCHESTRATOR_SERVER is set, but `{command}` changes this machine's data folder alone; unset it, or name the \
                 folder by --data-dir"
            )));
        }
    }
    Ok(())
}

/// The number of a key by which a request is known again, should it be sent twice.
pub fn fresh_key() -> String {
    use rand::RngCore;
    let mut bytes = [0_u8; 16];
    rand::rngs::OsRng.fill_bytes(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Tries a request with a key again once if the answer was lost: the key makes it count once.
///
/// # Errors
/// The second try's.
pub async fn post_once<T: serde::de::DeserializeOwned>(
    client: &Client,
    path: &[&str],
    body: Option<serde_json::Value>,
) -> Result<T, ClientError> {
    let ask = crate::client::Ask { path, body, key: Some(fresh_key()), ..Default::default() };
    match client.post(&ask).await {
        Err(ClientError::Unreachable { .. }) => client.post(&ask).await,
        other => other,
    }
}
