//! The graph of a build's stages as a picture: layers from left to right, each stage behind all that it needs. PURE.
//!
//! ```text
//! needs -> without those that others imply -> layers -> places for edges that pass a layer -> order in each layer -> drawn
//! ```

use std::collections::BTreeSet;

/// A stage to be drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Its key.
    pub name: String,
    /// Indices of what it waits for, all smaller than its own.
    pub needs: Vec<usize>,
    /// It runs whatever becomes of the others.
    pub is_cleanup: bool,
    /// What it took so far, in seconds.
    pub seconds: f64,
}

/// Where a stage is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// From the left.
    pub x: u32,
    /// From the top.
    pub y: u32,
}

/// A line between two stages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// The path's commands.
    pub path: String,
    /// It is part of the chain that took longest.
    pub critical: bool,
    /// It leads to a clean-up.
    pub cleanup: bool,
}

/// A drawn graph.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drawn {
    /// One for each stage.
    pub places: Vec<Place>,
    /// The lines.
    pub edges: Vec<Edge>,
    /// Width of a stage's box.
    pub box_width: u32,
    /// Of the picture.
    pub width: u32,
    /// Of the picture.
    pub height: u32,
}

/// Height of a stage's box.
pub const BOX_HEIGHT: u32 = 46;
/// Above and below a box.
const GAP_Y: u32 = 14;
/// Between two layers: room for the lines.
const GAP_X: u32 = 46;
/// Around everything: room for the boxes' outlines.
const MARGIN: u32 = 3;
/// Height of a line that passes a layer.
const PASS: u32 = 12;
/// Times that the layers are put in order.
const SWEEPS: usize = 4;

/// What stands in a layer: a stage, or a line that passes.
#[derive(Debug, Clone)]
struct Spot {
    stage: Option<usize>,
    layer: usize,
    before: Vec<usize>,
    after: Vec<usize>,
    /// From the top, of its middle.
    y: f64,
}

/// Pieces of lines that are drawn at most: a line has one for each layer that it passes.
const PIECES: usize = 3000;

/// Draws stages; nothing if that would be a tangle.
pub fn draw(stages: &[Stage]) -> Option<Drawn> {
    let direct = reduced(stages);
    let critical = critical(stages, &direct);
    let mut layers: Vec<usize> = Vec::with_capacity(stages.len());
    for needs in &direct {
        let layer = needs.iter().map(|&need| layers[need] + 1).max().unwrap_or(0);
        layers.push(layer);
    }
    let passed = |to: usize| direct[to].iter().map(|&from| layers[to] - layers[from]).sum::<usize>();
    if (0..stages.len()).map(passed).sum::<usize>() > PIECES {
        return None;
    }
    let (mut spots, chains) = spots(&direct, &layers);
    let rows = order(&mut spots);
    let height = place(&mut spots, &rows);
    let longest = stages.iter().map(|stage| stage.name.chars().count()).max().unwrap_or(0) as u32;
    let box_width = (longest * 8 + 44).clamp(150, 230);
    let x = |layer: usize| MARGIN + layer as u32 * (box_width + GAP_X);
    let places = spots.iter().take(stages.len());
    let places: Vec<Place> =
        places.map(|spot| Place { x: x(spot.layer), y: spot.y.round() as u32 - BOX_HEIGHT / 2 }).collect();
    let edges = chains.iter().map(|chain| {
        let points: Vec<(u32, u32)> =
            chain.iter().map(|&at| (x(spots[at].layer), spots[at].y.round() as u32)).collect();
        let (from, to) = (chain[0], chain[chain.len() - 1]);
        Edge {
            path: path(&points, box_width),
            critical: critical.contains(&(from, to)),
            cleanup: stages[to].is_cleanup && stages[to].needs.len() != 1,
        }
    });
    let last = layers.iter().copied().max().unwrap_or(0);
    Some(Drawn { edges: edges.collect(), places, box_width, width: x(last) + box_width + MARGIN, height })
}

/// What each stage waits for, without what follows from the rest.
fn reduced(stages: &[Stage]) -> Vec<Vec<usize>> {
    let mut before: Vec<BTreeSet<usize>> = Vec::with_capacity(stages.len());
    let mut direct = Vec::with_capacity(stages.len());
    for stage in stages {
        let implied: BTreeSet<usize> = stage.needs.iter().flat_map(|&need| before[need].iter().copied()).collect();
        let own: Vec<usize> = stage.needs.iter().copied().filter(|need| !implied.contains(need)).collect();
        before.push(implied.into_iter().chain(own.iter().copied()).collect());
        direct.push(own);
    }
    direct
}

/// The lines of the chain that took longest.
fn critical(stages: &[Stage], direct: &[Vec<usize>]) -> BTreeSet<(usize, usize)> {
    let mut best: Vec<(f64, Option<usize>)> = Vec::with_capacity(stages.len());
    for (stage, needs) in stages.iter().zip(direct) {
        let longest = needs.iter().copied().max_by(|&a, &b| best[a].0.total_cmp(&best[b].0));
        best.push((stage.seconds + longest.map_or(0.0, |need| best[need].0), longest));
    }
    let mut chain = BTreeSet::new();
    let ended = (0..stages.len()).filter(|&at| !stages[at].is_cleanup);
    let mut at = ended.max_by(|&a, &b| best[a].0.total_cmp(&best[b].0)).filter(|&at| best[at].0 > 0.0);
    while let Some(here) = at {
        at = best[here].1;
        if let Some(before) = at {
            chain.insert((before, here));
        }
    }
    chain
}

/// The stages, and places in the layers that lines pass; each line as the spots that it touches.
fn spots(direct: &[Vec<usize>], layers: &[usize]) -> (Vec<Spot>, Vec<Vec<usize>>) {
    let spot = |stage, layer| Spot { stage, layer, before: Vec::new(), after: Vec::new(), y: 0.0 };
    let mut spots: Vec<Spot> = layers.iter().enumerate().map(|(at, &layer)| spot(Some(at), layer)).collect();
    let mut chains = Vec::new();
    for (to, needs) in direct.iter().enumerate() {
        for &from in needs {
            let mut chain = vec![from];
            for layer in layers[from] + 1..layers[to] {
                spots.push(spot(None, layer));
                chain.push(spots.len() - 1);
            }
            chain.push(to);
            for pair in chain.windows(2) {
                spots[pair[0]].after.push(pair[1]);
                spots[pair[1]].before.push(pair[0]);
            }
            chains.push(chain);
        }
    }
    (spots, chains)
}

/// The spots of each layer from top to bottom, so that lines cross seldom: each near the middle of its neighbours.
fn order(spots: &mut [Spot]) -> Vec<Vec<usize>> {
    let last = spots.iter().map(|spot| spot.layer).max().unwrap_or(0);
    let mut rows: Vec<Vec<usize>> = vec![Vec::new(); last + 1];
    for (at, spot) in spots.iter().enumerate() {
        rows[spot.layer].push(at);
    }
    let number = |rows: &[Vec<usize>], spots: &mut [Spot]| {
        for row in rows {
            for (at, &spot) in row.iter().enumerate() {
                spots[spot].y = at as f64;
            }
        }
    };
    number(&rows, spots);
    for sweep in 0..SWEEPS {
        let forth = sweep % 2 == 0;
        for step in 0..=last {
            let layer = if forth { step } else { last - step };
            let middle = |at: usize, spots: &[Spot]| {
                let near = if forth { &spots[at].before } else { &spots[at].after };
                if near.is_empty() {
                    return spots[at].y;
                }
                near.iter().map(|&other| spots[other].y).sum::<f64>() / near.len() as f64
            };
            let mut keyed: Vec<(f64, usize)> = rows[layer].iter().map(|&at| (middle(at, spots), at)).collect();
            // Equal ones stay as they stand.
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
            rows[layer] = keyed.into_iter().map(|(_, at)| at).collect();
            for (at, &spot) in rows[layer].iter().enumerate() {
                spots[spot].y = at as f64;
            }
        }
    }
    rows
}

/// Puts every layer in the middle of the picture, and gives its height.
fn place(spots: &mut [Spot], rows: &[Vec<usize>]) -> u32 {
    let size = |spot: &Spot| if spot.stage.is_some() { BOX_HEIGHT } else { PASS };
    let total = |row: &Vec<usize>, spots: &[Spot]| -> u32 {
        let sizes: u32 = row.iter().map(|&at| size(&spots[at])).sum();
        sizes + GAP_Y * (row.len() as u32).saturating_sub(1)
    };
    let height = rows.iter().map(|row| total(row, spots)).max().unwrap_or(0);
    for row in rows {
        let mut y = MARGIN + (height - total(row, spots)) / 2;
        for &at in row {
            let own = size(&spots[at]);
            spots[at].y = f64::from(y + own / 2);
            y += own + GAP_Y;
        }
    }
    height + 2 * MARGIN
}

/// A line from the right of the first box to the left of the last, straight through the layers that it passes.
fn path(points: &[(u32, u32)], box_width: u32) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    for (at, pair) in points.windows(2).enumerate() {
        let (begin, y) = (pair[0].0 + box_width, pair[0].1);
        let (end, to) = pair[1];
        let middle = (begin + end) / 2;
        // Text grows; it does not fail.
        let _ = if at == 0 { write!(out, "M{begin} {y}") } else { write!(out, "H{begin}") };
        let _ = write!(out, "C{middle} {y} {middle} {to} {end} {to}");
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stage(name: &str, needs: &[usize], seconds: f64) -> Stage {
        Stage { name: name.to_owned(), needs: needs.to_vec(), is_cleanup: false, seconds }
    }

    #[test]
    fn a_chain_is_drawn_from_left_to_right_without_what_follows() {
        let drawn = draw(&[stage("a", &[], 1.0), stage("b", &[0], 1.0), stage("c", &[0, 1], 1.0)]).unwrap();
        assert!(drawn.places.windows(2).all(|pair| pair[0].x < pair[1].x && pair[0].y == pair[1].y), "{drawn:?}");
        assert_eq!(drawn.edges.len(), 2);
        assert!(drawn.edges.iter().all(|edge| edge.critical));
    }

    #[test]
    fn the_slower_way_is_the_critical_one() {
        let stages =
            [stage("a", &[], 1.0), stage("slow", &[0], 9.0), stage("fast", &[0], 2.0), stage("end", &[1, 2], 1.0)];
        let critical: Vec<bool> = draw(&stages).unwrap().edges.iter().map(|edge| edge.critical).collect();
        assert_eq!(critical, [true, false, true, false]);
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert!(draw(&[]).unwrap().places.is_empty());
    }

    #[test]
    fn a_tangle_is_not_drawn() {
        let early: Vec<Stage> = (0..90).map(|at| stage(&format!("a{at}"), &[], 1.0)).collect();
        let late = (0..90).map(|at| stage(&format!("b{at}"), &(0..90).collect::<Vec<_>>(), 1.0));
        assert!(draw(&early.iter().cloned().chain(late).collect::<Vec<_>>()).is_none());
    }

    /// Stages, each of which waits for some of those before it.
    fn any_stages() -> impl Strategy<Value = Vec<Stage>> {
        prop::collection::vec((prop::collection::vec(any::<prop::sample::Index>(), 0..4), 0.0..100.0f64), 1..30)
            .prop_map(|all| {
                let make = |(at, (needs, seconds)): (usize, (Vec<prop::sample::Index>, f64))| {
                    let needs: BTreeSet<usize> =
                        if at == 0 { BTreeSet::new() } else { needs.iter().map(|need| need.index(at)).collect() };
                    Stage { name: format!("s{at}"), needs: needs.into_iter().collect(), is_cleanup: false, seconds }
                };
                all.into_iter().enumerate().map(make).collect()
            })
    }

    proptest! {
        #[test]
        fn boxes_never_overlap_and_stand_behind_what_they_need(stages in any_stages()) {
            let drawn = draw(&stages).unwrap();
            for (at, place) in drawn.places.iter().enumerate() {
                prop_assert!(place.x + drawn.box_width <= drawn.width && place.y + BOX_HEIGHT <= drawn.height);
                for need in &stages[at].needs {
                    prop_assert!(drawn.places[*need].x < place.x);
                }
                for other in &drawn.places[..at] {
                    let apart = place.x != other.x || place.y.abs_diff(other.y) >= BOX_HEIGHT;
                    prop_assert!(apart, "{place:?} {other:?}");
                }
            }
        }
    }
}
