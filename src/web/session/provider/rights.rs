//! What somebody may do whom a provider knows.
//!
//! PURE.

use super::Refused;
use crate::config::types::Access;
use crate::store::access::Scope;

/// Somebody whom a provider knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// What the audit log calls them. No token has such a name.
    pub name: String,
    /// Everything that an entry may name them by, as [`normal`] writes it.
    pub marks: Vec<String>,
}

/// What a person may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// At least one.
    pub scopes: Vec<Scope>,
    /// For which projects; `None` for all.
    pub projects: Option<Vec<String>>,
}

/// Who may sign in, and what they may do then.
#[derive(Debug, Clone)]
pub struct Rules {
    allowed: Vec<String>,
    access: Vec<(Vec<String>, Rights)>,
}

/// Who is meant by everybody.
pub const ALL: &str = "*";

/// An entry as it is compared: addresses and names have no case, groups and ids do.
pub fn normal(entry: &str) -> String {
    let entry = entry.trim();
    if entry.starts_with("group:") || entry.starts_with("sub:") { entry.to_owned() } else { entry.to_lowercase() }
}

impl Rules {
    /// As configured.
    pub fn new(allowed: &[String], access: &[Access]) -> Self {
        let all = |entries: &[String]| entries.iter().map(|entry| normal(entry)).collect::<Vec<_>>();
        let rights = |entry: &Access| Rights {
            scopes: entry.scopes.iter().filter_map(|word| scope(word)).collect(),
            projects: entry.projects.clone(),
        };
        let access = access.iter().map(|entry| (all(&entry.who), rights(entry))).collect();
        Self { allowed: all(allowed), access }
    }

    /// Everything that is named anywhere.
    pub fn entries(&self) -> impl Iterator<Item = &str> {
        self.allowed.iter().chain(self.access.iter().flat_map(|(who, _)| who)).map(String::as_str)
    }

    /// What this person may do. The first entry that names them holds; two together could mean more than either.
    ///
    /// # Errors
    /// [`Refused::Person`].
    pub fn rights(&self, person: &Person) -> Result<Rights, Refused> {
        let is = |entry: &String| person.marks.contains(entry);
        if !self.allowed.iter().any(is) {
            return Err(Refused::Person(person.name.clone()));
        }
        let named = self.access.iter().find(|(who, _)| who.iter().any(|entry| entry == ALL || is(entry)));
        let usual = || Rights { scopes: vec![Scope::Read], projects: None };
        Ok(named.map_or_else(usual, |(_, rights)| rights.clone()))
    }
}

fn scope(word: &str) -> Option<Scope> {
    match word {
        "read" => Some(Scope::Read),
        "trigger" => Some(Scope::Trigger),
        "approve" => Some(Scope::Approve),
        "admin" => Some(Scope::Admin),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_that_names_somebody_holds() {
        let owned = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let entry = |who: &[&str], scopes: &[&str], projects: Option<&[&str]>| Access {
            who: owned(who),
            scopes: owned(scopes),
            projects: projects.map(owned),
        };
        let rules = Rules::new(
            &owned(&["@Example.com", "group:ML", "eve@other.org"]),
            &[
                entry(&["Boss@example.com"], &["admin"], None),
                entry(&["group:ML", "ann@example.com"], &["trigger", "approve"], Some(&["a"])),
                entry(&["zoe@elsewhere.org"], &["admin"], None),
            ],
        );
        let check = |marks: &[&str], expected: Option<(&[Scope], Option<&[&str]>)>| {
            let person = Person { name: "x".to_owned(), marks: owned(marks) };
            let found = rules.rights(&person).ok();
            let expected =
                expected.map(|(scopes, projects)| Rights { scopes: scopes.to_vec(), projects: projects.map(owned) });
            assert_eq!(found, expected, "{marks:?}");
        };
        let some: Option<&[&str]> = Some(&["a"]);
        check(&["boss@example.com", "@example.com", "group:ML"], Some((&[Scope::Admin], None)));
        check(&["group:ML"], Some((&[Scope::Trigger, Scope::Approve], some)));
        check(&["ann@example.com", "@example.com"], Some((&[Scope::Trigger, Scope::Approve], some)));
        check(&["tom@example.com", "@example.com"], Some((&[Scope::Read], None)));
        check(&["eve@other.org", "@other.org"], Some((&[Scope::Read], None)));
        // Named by an entry of rights alone, or by another case of a group.
        check(&["zoe@elsewhere.org", "@elsewhere.org"], None);
        check(&["group:ml"], None);
        check(&[ALL], None);
        check(&[], None);
    }
}
