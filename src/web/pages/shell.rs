//! What is around every page. PURE.

use super::assets;
use super::visitor::Visitor;

/// A part of the site, as the navigation has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Projects and builds.
    Builds,
    /// Models.
    Models,
    /// What serves.
    Deployments,
    /// The queue and the runners.
    Queue,
    /// Webhook calls.
    Deliveries,
    /// Tokens, secrets, the audit log.
    Settings,
    /// None of them.
    Other,
}

/// The frame of a page.
#[derive(Debug, Clone)]
pub struct Shell {
    /// The page's title, without the program's name.
    pub title: String,
    /// Which part of the site.
    pub section: Section,
    /// Who looks; nobody on pages that need none.
    pub who: Option<String>,
    /// For the forms of the page.
    pub csrf: String,
    /// They can sign out.
    pub signed_in: bool,
    /// The feed of events after which the page is fetched again.
    pub events: Option<String>,
    /// The page is fetched again after so many seconds, too.
    pub every: Option<u32>,
}

impl Shell {
    /// The frame of a page for someone.
    pub fn new(visitor: &Visitor, section: Section, title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            section,
            who: Some(visitor.caller.name.clone()),
            csrf: visitor.csrf.clone(),
            signed_in: visitor.signed_in,
            events: None,
            every: None,
        }
    }

    /// The frame of a page that anybody may see.
    pub fn bare(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            section: Section::Other,
            who: None,
            csrf: String::new(),
            signed_in: false,
            events: None,
            every: None,
        }
    }

    /// The page follows this feed.
    pub fn live(self, events: impl Into<String>) -> Self {
        Self { events: Some(events.into()), ..self }
    }

    /// The page is fetched again after so many seconds, too.
    pub fn every(self, seconds: u32) -> Self {
        Self { every: Some(seconds), ..self }
    }

    /// Where the style is.
    pub fn style(&self) -> String {
        assets::style()
    }

    /// Where the script is.
    pub fn script(&self) -> String {
        assets::script()
    }

    /// Where the script of logs is.
    pub fn log_script(&self) -> String {
        assets::log_script()
    }

    /// Where the icon is.
    pub fn icon(&self) -> String {
        assets::icon()
    }

    /// `page` for the link of the part one is in.
    pub fn current(&self, section: Section) -> &'static str {
        if self.section == section { "page" } else { "false" }
    }
}
