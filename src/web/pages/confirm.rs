//! A question before a deed that hurts, on a page of its own.

use askama::Template;

use super::coded::Coded;
use super::shell::{Section, Shell};
use super::visitor::Visitor;

/// The question.
#[derive(Template)]
#[template(path = "confirm.html")]
pub struct Confirm {
    /// The frame.
    pub shell: Shell,
    /// What is asked.
    pub question: String,
    /// What it means, each a sentence.
    pub facts: Vec<String>,
    /// Where the form goes.
    pub action: String,
    /// What the form carries unseen.
    pub hidden: Vec<(&'static str, String)>,
    /// A reason is asked for; it may stay empty.
    pub reason: bool,
    /// The buttons: value of `how`, text, whether it hurts.
    pub buttons: Vec<(&'static str, &'static str, bool)>,
    /// Where one gets without the deed.
    pub back: String,
}

impl Confirm {
    /// A question without facts and buttons.
    pub fn new(visitor: &Visitor, section: Section, question: String, (action, back): (String, String)) -> Self {
        Self {
            shell: Shell::new(visitor, section, question.clone()),
            question,
            facts: Vec::new(),
            action,
            hidden: Vec::new(),
            reason: false,
            buttons: Vec::new(),
            back,
        }
    }
}
