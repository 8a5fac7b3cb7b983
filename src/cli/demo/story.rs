//! What happened in the last weeks, as the demo tells it. PURE.

/// Of which days the newest scenes are left out if it has to be quick.
const QUICK_SINCE: f64 = 9.0;

/// Something that happened.
#[derive(Debug, Clone)]
pub struct Scene {
    /// How long ago, in days.
    pub days_ago: f64,
    /// What.
    pub deed: Deed,
}

/// A commit.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Whose repository.
    pub project: &'static str,
    /// On which branch; it is made of `main` if it is not there.
    pub branch: &'static str,
    /// Who.
    pub author: (&'static str, &'static str),
    /// Its message.
    pub message: &'static str,
    /// What the pipeline's file says where it has words in capitals.
    pub words: Vec<(&'static str, String)>,
}

/// What can happen.
#[derive(Debug, Clone)]
pub enum Deed {
    /// A commit, and its build to the end.
    Build(Commit),
    /// A commit whose build somebody cancels.
    Cancelled(Commit),
    /// A commit whose build fails and is run again from there.
    Retried(Commit),
    /// A commit that starts nothing.
    Skipped(Commit),
    /// A tag at the newest commit, and its build.
    Tag(&'static str, &'static str),
    /// Somebody promotes, rejects or rolls back: model, verb, version, reason.
    ByHand(&'static str, &'static str, u64, &'static str),
    /// A secret is set.
    Secret(&'static str, &'static str),
    /// A token is made.
    Token(&'static str, &'static str),
    /// A webhook that tells of nothing to build.
    Hook(&'static str),
    /// Somebody from outside asks for a change.
    Fork(&'static str),
}

const DATA: (&str, &str) = ("Data team", "data@example.com");
const API: (&str, &str) = ("API team", "api@example.com");
const OPS: (&str, &str) = ("Platform team", "platform@example.com");

/// The whole story, the oldest first; `port` is where the players' model serves.
pub fn story(port: u16, quick: bool) -> Vec<Scene> {
    let mut scenes = players(port);
    scenes.extend(churn());
    scenes.extend(features());
    scenes.extend(around());
    scenes.sort_by(|one, other| other.days_ago.total_cmp(&one.days_ago));
    if quick {
        scenes.retain(|scene| scene.days_ago >= QUICK_SINCE);
    }
    scenes
}

fn scene(days_ago: f64, deed: Deed) -> Scene {
    Scene { days_ago, deed }
}

fn players(port: u16) -> Vec<Scene> {
    let commit = |author, message, algorithm: &str, params: &str, other: &[(&'static str, &str)]| {
        let usual = [("FIELD", "probability"), ("SECONDS", "3s"), ("LIMIT", "250ms")];
        let of = |name: &str, usual: &str| {
            other.iter().find(|(known, _)| *known == name).map_or(usual, |(_, value)| *value).to_owned()
        };
        let mut words: Vec<(&'static str, String)> =
            usual.iter().map(|(name, value)| (*name, of(name, value))).collect();
        words.extend([("ALGORITHM", algorithm.to_owned()), ("PARAMS", params.to_owned()), ("PORT", port.to_string())]);
        Commit { project: "player-stats", branch: "main", author, message, words }
    };
    let shallow = "{ max_depth: 2 }";
    let deep = "{ max_depth: 5, min_leaf: 8 }";
    let forest = "{ trees: 60, min_leaf: 4 }";
    vec![
        scene(20.3, Deed::Build(commit(DATA, "A first tree, two questions deep", "decision-tree", shallow, &[]))),
        scene(18.1, Deed::Build(commit(DATA, "A deeper tree", "decision-tree", deep, &[]))),
        scene(16.4, Deed::Build(commit(DATA, "Try naive Bayes: it trains in no time", "naive-bayes", "{}", &[]))),
        scene(
            13.2,
            Deed::Build(commit(
                API,
                "Answer `score` in place of `probability`",
                "decision-tree",
                deep,
                &[("FIELD", "score")],
            )),
        ),
        scene(
            13.1,
            Deed::Build(commit(API, "Back to `probability`: nobody was told of `score`", "decision-tree", deep, &[])),
        ),
        scene(9.2, Deed::Build(commit(DATA, "A forest of 60 trees", "random-forest", forest, &[]))),
        scene(
            6.3,
            Deed::Build(commit(
                OPS,
                "Promise answers within a tenth of a millisecond",
                "random-forest",
                forest,
                &[("LIMIT", "0.1ms")],
            )),
        ),
        scene(6.2, Deed::Build(commit(OPS, "Promise what can be kept", "random-forest", forest, &[]))),
        scene(
            2.4,
            Deed::Build(commit(
                DATA,
                "Logistic regression, to have something that can be explained",
                "logistic",
                "{}",
                &[],
            )),
        ),
        scene(
            0.12,
            Deed::Build(commit(
                API,
                "Load it for longer before it reaches users",
                "random-forest",
                "{ trees: 80, min_leaf: 3 }",
                &[("SECONDS", "8s")],
            )),
        ),
    ]
}

fn churn() -> Vec<Scene> {
    let of = |(model, approval): (&str, &str), message, algorithm: &str, params: &str, tries: &str| Commit {
        project: "churn",
        branch: "main",
        author: DATA,
        message,
        words: vec![
            ("ALGORITHM", algorithm.to_owned()),
            ("PARAMS", params.to_owned()),
            ("TRIES", tries.to_owned()),
            ("MODEL", model.to_owned()),
            ("APPROVAL", approval.to_owned()),
        ],
    };
    let commit =
        |message, algorithm: &str, params: &str, tries: &str| of(("churn", "none"), message, algorithm, params, tries);
    let weekly = of(("churn-weekly", "manual"), "One for the weekly report, if the desk agrees", "logistic", "{}", "1");
    vec![
        scene(19.5, Deed::Build(commit("Who leaves? A first answer", "logistic", "{}", "1"))),
        scene(15.2, Deed::Build(commit("Neighbours know best", "knn", "{ neighbours: 9 }", "2"))),
        scene(11.6, Deed::Build(commit("A forest", "random-forest", "{ trees: 60, min_leaf: 4 }", "1"))),
        scene(
            7.8,
            Deed::Retried(commit("Give up on the warehouse later", "random-forest", "{ trees: 60, min_leaf: 4 }", "4")),
        ),
        scene(3.5, Deed::Build(commit("A single tree would do", "decision-tree", "{ max_depth: 4 }", "2"))),
        scene(0.6, Deed::Build(weekly)),
        scene(3.4, Deed::ByHand("churn", "reject", 4, "cannot be explained to the customers' desk")),
    ]
}

fn features() -> Vec<Scene> {
    let commit = |branch, author, message, value: &str, schedule: &str| Commit {
        project: "feature-service",
        branch,
        author,
        message,
        words: vec![
            ("VALUE", value.to_owned()),
            ("SCHEDULE", schedule.to_owned()),
            // Long enough for somebody to change their mind.
            ("SLEEP", if message.starts_with("Warm") { "20" } else { "0.1" }.to_owned()),
        ],
    };
    let nightly = "\non:\n  push: { branches: [\"*\"], tags: [\"v*\"] }\n  pull_request: {}\n  schedule: [ { cron: \"0 3 * * *\", timezone: Europe/London } ]\n";
    let on = "\non: { push: { branches: [\"*\"], tags: [\"v*\"] }, pull_request: {} }\n";
    vec![
        scene(20.6, Deed::Build(commit("main", OPS, "Serve features from parquet", "key:", on))),
        scene(17.3, Deed::Build(commit("main", API, "Features by player, not by row", "0.81", on))),
        scene(17.2, Deed::Build(commit("main", API, "Values again, not bare keys", "key:", on))),
        scene(14.5, Deed::Build(commit("form-as-a-feature", DATA, "The form of the last five games", "key:", on))),
        scene(12.2, Deed::Skipped(commit("main", OPS, "Words of the README [skip ci]", "key:", on))),
        scene(10.4, Deed::Tag("feature-service", "v1.4.0")),
        scene(5.1, Deed::Cancelled(commit("main", OPS, "Warm the cache first", "key:", on))),
        scene(1.3, Deed::Build(commit("main", OPS, "Build each night, too", "key:", nightly))),
    ]
}

/// What happens around builds.
fn around() -> Vec<Scene> {
    vec![
        scene(20.7, Deed::Hook("ping")),
        scene(19.9, Deed::Token("dashboard", "read")),
        scene(19.8, Deed::Secret("churn", "WAREHOUSE_TOKEN")),
        scene(12.1, Deed::Hook("issues")),
        scene(4.2, Deed::ByHand("player-stats", "rollback", 0, "odd answers for keepers, looking into it")),
        scene(4.1, Deed::ByHand("player-stats", "promote", 4, "it was the table, not the model")),
        scene(0.05, Deed::Fork("feature-service")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_forward_in_time_and_a_quick_one_is_shorter() {
        let (whole, quick) = (story(8090, false), story(8090, true));
        assert!(whole.windows(2).all(|two| two[0].days_ago >= two[1].days_ago));
        assert!(quick.len() < whole.len() && quick.len() > 10, "{}", quick.len());
        let commits = whole.iter().filter(|scene| matches!(scene.deed, Deed::Build(_))).count();
        assert!(commits >= 15, "{commits}");
    }
}
