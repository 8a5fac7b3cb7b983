//! `orchestrator tokens`: on a server, or on the data folder, which is how an operator gets in again without any token.

use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};

use super::exit;
use super::place::Place;
use super::{data, text};
use crate::client::{Ask, answers};
use crate::engine::now;
use crate::ids::Micros;
use crate::store::access::{self, Scope};
use crate::web::api::tokens::{LISTED, TokenView, Wish};

/// `tokens`
#[derive(Debug, Args)]
pub struct TokensArgs {
    /// What to do [default: list]
    #[command(subcommand)]
    pub command: Option<TokensCommand>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `tokens create|list|revoke`
#[derive(Debug, Subcommand)]
pub enum TokensCommand {
    /// Make a token; it is printed once
    #[command(
        after_help = "Examples:\n  orchestrator tokens create laptop --scope admin\n  orchestrator tokens create ci --scope trigger --project churn --days 90"
    )]
    Create {
        /// What it is called
        name: String,
        /// What it allows (repeatable)
        #[arg(long, value_enum, default_value = "read")]
        scope: Vec<Allowed>,
        /// Only for this project (repeatable) [default: all]
        #[arg(long)]
        project: Vec<String>,
        /// Days until it ends by itself [default: never]
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=3650))]
        days: Option<u16>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List tokens, without themselves
    #[command(after_help = "Example:\n  orchestrator tokens list")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// End a token
    #[command(after_help = "Example:\n  orchestrator tokens revoke 3")]
    Revoke {
        /// Its number
        token: u64,
    },
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Allowed {
    /// Look
    Read,
    /// Start, cancel and retry builds
    Trigger,
    /// Agree to builds and promotions
    Approve,
    /// Everything
    Admin,
}

impl From<Allowed> for Scope {
    fn from(allowed: Allowed) -> Self {
        match allowed {
            Allowed::Read => Scope::Read,
            Allowed::Trigger => Scope::Trigger,
            Allowed::Approve => Scope::Approve,
            Allowed::Admin => Scope::Admin,
        }
    }
}

#[derive(Deserialize)]
struct Made {
    id: u64,
    token: String,
}

/// Does what was asked.
///
/// # Errors
/// The server's or the database's.
pub async fn run(place: Place, args: TokensArgs) -> anyhow::Result<i32> {
    match args.command {
        None => list(place, args.json).await,
        Some(TokensCommand::List { json }) => list(place, json || args.json).await,
        Some(TokensCommand::Create { name, scope, project, days, json }) => {
            let scopes: Vec<Scope> = scope.into_iter().map(Scope::from).collect();
            let projects = (!project.is_empty()).then_some(project);
            create(place, Wish { name, scopes, projects, days }, json || args.json).await
        }
        Some(TokensCommand::Revoke { token }) => revoke(place, token).await,
    }
}

async fn create(place: Place, wish: Wish, json: bool) -> anyhow::Result<i32> {
    let name = wish.name.clone();
    let made: Value = match place {
        Place::There(client) => {
            let body =
                json!({ "name": wish.name, "scopes": wish.scopes, "projects": wish.projects, "days": wish.days });
            // Sent once: its answer is not kept, since it holds the token.
            client.post(&Ask { path: &["tokens"], body: Some(body), ..Ask::default() }).await?
        }
        Place::Here(data) => {
            let engine = data::open(data.as_deref()).await?;
            let (token, new) = wish.token(&data::actor(), now()).map_err(super::exit::Usage)?;
            let id = engine.store.write(move |tx| crate::web::api::tokens::store(tx, &new, now())).await?;
            json!({ "id": id, "token": token })
        }
    };
    if json {
        data::print_json(&made)?;
        return Ok(exit::PASSED);
    }
    let made: Made = serde_json::from_value(made)?;
    text::remark(&format!("token {} `{name}`, shown this once:", made.id));
    anstream::println!("{}", made.token);
    Ok(exit::PASSED)
}

async fn list(place: Place, json: bool) -> anyhow::Result<i32> {
    let value: Value = match place {
        Place::There(client) => client.get(&Ask { path: &["tokens"], ..Ask::default() }).await?,
        Place::Here(data) => {
            let engine = data::open(data.as_deref()).await?;
            let rows = engine.store.read(|db| access::tokens(db, LISTED)).await?;
            serde_json::to_value(rows.into_iter().map(TokenView::from).collect::<Vec<_>>())?
        }
    };
    if json {
        data::print_json(&value)?;
        return Ok(exit::PASSED);
    }
    let tokens: Vec<answers::Token> = serde_json::from_value(value)?;
    if tokens.is_empty() {
        text::remark("no tokens yet: `orchestrator tokens create NAME --scope admin` makes one");
        return Ok(exit::PASSED);
    }
    let moment = |at: Option<i64>, never: &str| at.map_or(never.to_owned(), |at| text::moment(Micros(at)));
    let head = ["TOKEN", "NAME", "SCOPES", "PROJECTS", "MADE BY", "USED", "STATE"];
    let mut table = vec![head.map(str::to_owned).to_vec()];
    for row in tokens {
        let state = match (row.revoked_at, row.expires_at) {
            (Some(at), _) => format!("revoked {}", moment(Some(at), "")),
            (None, Some(at)) if at <= now().0 => format!("ended {}", moment(Some(at), "")),
            (None, Some(at)) => format!("until {}", moment(Some(at), "")),
            (None, None) => "good".to_owned(),
        };
        table.push(vec![
            row.id.to_string(),
            text::one_line(&row.name, 40),
            row.scopes.join(","),
            row.projects.map_or("all".to_owned(), |projects| text::one_line(&projects.join(","), 60)),
            text::one_line(&row.made_by, 40),
            moment(row.used_at, "never"),
            state,
        ]);
    }
    anstream::print!("{}", text::table(&table));
    Ok(exit::PASSED)
}

async fn revoke(place: Place, id: u64) -> anyhow::Result<i32> {
    match place {
        Place::There(client) => {
            client.delete(&Ask { path: &["tokens", &id.to_string()], ..Ask::default() }).await?;
        }
        Place::Here(data) => {
            let engine = data::open(data.as_deref()).await?;
            let write = engine.store.write(move |tx| {
                access::revoke_token(tx, id, now())?;
                access::audit(tx, &data::actor(), "token.revoke", &id.to_string(), "", now())
            });
            write.await?;
        }
    }
    text::remark(&format!("token {id} is revoked"));
    Ok(exit::PASSED)
}
