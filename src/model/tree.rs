//! Decision trees (CART) for classes and numbers, one alone or as a forest.
//!
//! Why not linfa's: its trees count classes in hash maps that are ordered anew in each process, so ties and rounding make a
//! different tree from the same data and seed, and its leaves keep the commonest class alone. Here the same input gives the
//! same tree to the bit, and leaves keep the share of each class, which is what ranking a rare class needs.

use std::num::NonZero;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};

use ndarray::{Array2, ArrayView1};

/// A tree as parallel arrays; node 0 is the root, children come after their parents.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Tree {
    /// Which number a node looks at; -1 for a leaf.
    feature: Vec<i32>,
    /// Left if the number is at most this; for a leaf 0.
    threshold: Vec<f64>,
    /// Left child; for a leaf the index of its values in `leaves`.
    left: Vec<u32>,
    /// Right child; for a leaf 0.
    right: Vec<u32>,
    /// A leaf's share of each class, or its mean.
    leaves: Vec<Vec<f64>>,
}

/// What is learned from.
#[derive(Debug, Clone, Copy)]
pub enum Targets<'a> {
    /// Class of each row, in `0..weights.len()`, and the weight of a row of each class.
    Classes { codes: &'a [usize], weights: &'a [f64] },
    /// Number of each row.
    Numbers(&'a [f64]),
}

/// How a class split is scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quality {
    /// Gini impurity.
    Gini,
    /// Entropy.
    Entropy,
}

/// How trees grow.
#[derive(Debug, Clone, Copy)]
pub struct Growth {
    /// Levels below the root at most.
    pub max_depth: usize,
    /// Rows that a node needs to be split.
    pub min_split: usize,
    /// Rows that each side of a split needs.
    pub min_leaf: usize,
    /// How many of the numbers are tried at each node, drawn anew each time.
    pub tried: usize,
    /// For classes.
    pub quality: Quality,
}

impl Tree {
    /// Grows a tree on these rows (which may hold a row several times).
    pub fn grow(x: &Array2<f64>, targets: Targets<'_>, mut rows: Vec<u32>, growth: Growth, seed: u64) -> Self {
        let mut grower = Grower {
            x,
            targets,
            growth,
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
            order: (0..x.ncols()).collect(),
            sorted: Vec::new(),
            tree: Tree::default(),
        };
        grower.node(&mut rows, 0);
        grower.tree
    }

    /// The values of the leaf that this row falls into.
    pub fn leaf(&self, row: &[f64]) -> &[f64] {
        let mut node = 0;
        while let Ok(feature) = usize::try_from(self.feature[node]) {
            let side = if row[feature] <= self.threshold[node] { &self.left } else { &self.right };
            node = side[node] as usize;
        }
        &self.leaves[self.left[node] as usize]
    }

    /// Whether a tree read from a file can be walked for rows of `width` numbers and gives `values` numbers.
    pub fn is_sound(&self, width: usize, values: usize) -> bool {
        let nodes = self.feature.len();
        let equal = [self.threshold.len(), self.left.len(), self.right.len()].iter().all(|length| *length == nodes);
        let sound = |node: usize| match usize::try_from(self.feature[node]) {
            // Children after their parent: no walk can go round in circles.
            Ok(feature) => {
                let child = |child: u32| (node + 1..nodes).contains(&(child as usize));
                feature < width && child(self.left[node]) && child(self.right[node])
            }
            Err(_) => self.leaves.get(self.left[node] as usize).is_some_and(|leaf| leaf.len() == values),
        };
        nodes > 0 && equal && (0..nodes).all(sound)
    }
}

/// Grows a forest: each tree on rows drawn with replacement. The same for any number of processors.
pub fn forest(
    x: &Array2<f64>,
    targets: Targets<'_>,
    trees: usize,
    sample: usize,
    growth: Growth,
    seed: u64,
) -> Vec<Tree> {
    let one = |index: usize| {
        // Odd constant of the golden ratio: neighbouring trees get seeds that are far apart.
        let seed = seed.wrapping_add((index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let rows = (0..sample).map(|_| below(&mut random, x.nrows()) as u32).collect();
        Tree::grow(x, targets, rows, growth, random.next_u64())
    };
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get).min(trees.max(1));
    let mut grown: Vec<Vec<Tree>> = Vec::new();
    std::thread::scope(|scope| {
        let one = &one;
        let handles: Vec<_> = (0..workers)
            .map(|worker| scope.spawn(move || (worker..trees).step_by(workers).map(one).collect::<Vec<_>>()))
            .collect();
        // A panic in a worker is a bug here: let it be one.
        let joined =
            handles.into_iter().map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        grown = joined.collect();
    });
    let mut piles: Vec<_> = grown.into_iter().map(Vec::into_iter).collect();
    (0..trees).filter_map(|index| piles[index % workers].next()).collect()
}

/// A number in `0..bound`, evenly.
pub fn below(random: &mut Xoshiro256PlusPlus, bound: usize) -> usize {
    ((u128::from(random.next_u64()) * bound as u128) >> 64) as usize
}

struct Grower<'a> {
    x: &'a Array2<f64>,
    targets: Targets<'a>,
    growth: Growth,
    random: Xoshiro256PlusPlus,
    /// Numbers of the rows, shuffled anew at each node as far as they are tried.
    order: Vec<usize>,
    /// Room for one node's values of one number, with the rows.
    sorted: Vec<(f64, u32)>,
    tree: Tree,
}

struct Split {
    feature: usize,
    threshold: f64,
    score: f64,
}

impl Grower<'_> {
    /// Appends a node for these rows and all below it; returns its index. Recursion is bounded by `max_depth`.
    fn node(&mut self, rows: &mut [u32], depth: usize) -> u32 {
        let index = self.tree.feature.len();
        self.tree.feature.push(-1);
        self.tree.threshold.push(0.0);
        self.tree.left.push(0);
        self.tree.right.push(0);
        let whole = Tally::of(&self.targets, rows);
        let may_split = depth < self.growth.max_depth && rows.len() >= self.growth.min_split && !whole.is_pure();
        let split = if may_split { self.best_split(rows, &whole) } else { None };
        let Some(split) = split else {
            self.tree.left[index] = self.tree.leaves.len() as u32;
            self.tree.leaves.push(whole.leaf());
            return index as u32;
        };
        let column = self.x.column(split.feature);
        rows.sort_by_key(|row| column[*row as usize] > split.threshold);
        let middle = rows.partition_point(|row| column[*row as usize] <= split.threshold);
        let (left, right) = rows.split_at_mut(middle);
        self.tree.feature[index] = split.feature as i32;
        self.tree.threshold[index] = split.threshold;
        self.tree.left[index] = self.node(left, depth + 1);
        self.tree.right[index] = self.node(right, depth + 1);
        index as u32
    }

    fn best_split(&mut self, rows: &[u32], whole: &Tally) -> Option<Split> {
        let mut best: Option<Split> = None;
        let (count, mut tried, mut at) = (self.order.len(), 0, 0);
        while at < count && tried < self.growth.tried {
            let other = at + below(&mut self.random, count - at);
            self.order.swap(at, other);
            let feature = self.order[at];
            at += 1;
            let found = self.split_by(feature, rows, whole);
            // A number that is the same in all rows of this node is not counted as tried.
            tried += usize::from(found.varies);
            if let Some(split) = found.split
                && best.as_ref().is_none_or(|best| split.score < best.score)
            {
                best = Some(split);
            }
        }
        // Without this, equal halves would be split for ever by rounding alone.
        best.filter(|best| best.score < whole.impurity(self.growth.quality) * (1.0 - 1e-12))
    }

    fn split_by(&mut self, feature: usize, rows: &[u32], whole: &Tally) -> Found {
        let column: ArrayView1<'_, f64> = self.x.column(feature);
        self.sorted.clear();
        self.sorted.extend(rows.iter().map(|row| (column[*row as usize], *row)));
        self.sorted.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let (mut left, mut right) = (whole.nothing(), whole.clone());
        let mut found = Found { varies: false, split: None };
        for (place, pair) in self.sorted.windows(2).enumerate() {
            let ((value, row), (next, _)) = (pair[0], pair[1]);
            left.add(&self.targets, row, 1.0);
            right.add(&self.targets, row, -1.0);
            if value == next {
                continue;
            }
            found.varies = true;
            let (before, after) = (place + 1, rows.len() - place - 1);
            if before < self.growth.min_leaf || after < self.growth.min_leaf {
                continue;
            }
            let score = left.impurity(self.growth.quality) + right.impurity(self.growth.quality);
            if found.split.as_ref().is_none_or(|split| score < split.score) {
                let middle = f64::midpoint(value, next);
                // The midpoint of neighbours may round up to the greater one, which belongs to the right.
                let threshold = if middle < next { middle } else { value };
                found.split = Some(Split { feature, threshold, score });
            }
        }
        found
    }
}

struct Found {
    varies: bool,
    split: Option<Split>,
}

/// What a set of rows holds.
#[derive(Debug, Clone)]
enum Tally {
    Classes(Vec<f64>),
    Numbers { count: f64, sum: f64, squares: f64 },
}

impl Tally {
    fn of(targets: &Targets<'_>, rows: &[u32]) -> Self {
        let mut tally = match targets {
            Targets::Classes { weights, .. } => Tally::Classes(vec![0.0; weights.len()]),
            Targets::Numbers(_) => Tally::Numbers { count: 0.0, sum: 0.0, squares: 0.0 },
        };
        for row in rows {
            tally.add(targets, *row, 1.0);
        }
        tally
    }

    fn nothing(&self) -> Self {
        match self {
            Tally::Classes(weights) => Tally::Classes(vec![0.0; weights.len()]),
            Tally::Numbers { .. } => Tally::Numbers { count: 0.0, sum: 0.0, squares: 0.0 },
        }
    }

    fn add(&mut self, targets: &Targets<'_>, row: u32, sign: f64) {
        match (self, targets) {
            (Tally::Classes(totals), Targets::Classes { codes, weights }) => {
                let class = codes[row as usize];
                totals[class] += sign * weights[class];
            }
            (Tally::Numbers { count, sum, squares }, Targets::Numbers(numbers)) => {
                let number = numbers[row as usize];
                *count += sign;
                *sum += sign * number;
                *squares += sign * number * number;
            }
            (Tally::Classes(_), Targets::Numbers(_)) | (Tally::Numbers { .. }, Targets::Classes { .. }) => {}
        }
    }

    fn is_pure(&self) -> bool {
        match self {
            Tally::Classes(totals) => totals.iter().filter(|total| **total > 0.0).count() < 2,
            Tally::Numbers { count, sum, squares } => squares - sum * sum / count <= 1e-12 * squares.abs(),
        }
    }

    /// Impurity times weight, so that the sum over both sides is what a split is to lower.
    fn impurity(&self, quality: Quality) -> f64 {
        match self {
            Tally::Classes(totals) => {
                let whole: f64 = totals.iter().sum();
                if whole <= 0.0 {
                    return 0.0;
                }
                match quality {
                    Quality::Gini => whole - totals.iter().map(|total| total * total).sum::<f64>() / whole,
                    Quality::Entropy => {
                        let bits = |total: &f64| -total * (total / whole).log2();
                        totals.iter().filter(|total| **total > 0.0).map(bits).sum()
                    }
                }
            }
            Tally::Numbers { count, sum, squares } if *count > 0.0 => (squares - sum * sum / count).max(0.0),
            Tally::Numbers { .. } => 0.0,
        }
    }

    fn leaf(&self) -> Vec<f64> {
        match self {
            Tally::Classes(totals) => {
                let whole: f64 = totals.iter().sum();
                totals.iter().map(|total| total / whole).collect()
            }
            Tally::Numbers { count, sum, .. } => vec![sum / count],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROWTH: Growth = Growth { max_depth: 20, min_split: 2, min_leaf: 1, tried: 2, quality: Quality::Gini };

    /// Two numbers; the class is whether both are on one side of 5.
    fn data() -> (Array2<f64>, Vec<usize>) {
        let x = Array2::from_shape_fn(
            (100, 2),
            |(row, column)| if column == 0 { (row % 10) as f64 } else { (row / 10) as f64 },
        );
        let classes = x.rows().into_iter().map(|row| usize::from((row[0] < 5.0) == (row[1] < 5.0))).collect();
        (x, classes)
    }

    #[test]
    fn a_tree_learns_what_no_single_split_shows() {
        let (x, codes) = data();
        for quality in [Quality::Gini, Quality::Entropy] {
            let targets = Targets::Classes { codes: &codes, weights: &[1.0, 1.0] };
            // One row short, or no first split would lower the impurity.
            let tree = Tree::grow(&x, targets, (1..100).collect(), Growth { quality, ..GROWTH }, 1);
            for (row, class) in x.rows().into_iter().zip(&codes) {
                assert_eq!(tree.leaf(&row.to_vec())[*class], 1.0);
            }
            assert!(tree.is_sound(2, 2));
            assert!(!tree.is_sound(1, 2) && !tree.is_sound(2, 3));
        }
    }

    #[test]
    fn numbers_are_learned_and_depth_is_kept() {
        let x = Array2::from_shape_fn((64, 1), |(row, _)| row as f64);
        let numbers: Vec<f64> = (0..64).map(|row| f64::from(row / 16)).collect();
        let tree = Tree::grow(&x, Targets::Numbers(&numbers), (0..64).collect(), GROWTH, 1);
        assert_eq!((0..64).map(|row| tree.leaf(&[f64::from(row)])[0]).collect::<Vec<_>>(), numbers);
        let stump = Tree::grow(&x, Targets::Numbers(&numbers), (0..64).collect(), Growth { max_depth: 1, ..GROWTH }, 1);
        assert_eq!(stump.leaves, [[0.5], [2.5]]);
        let coarse =
            Tree::grow(&x, Targets::Numbers(&numbers), (0..64).collect(), Growth { min_leaf: 33, ..GROWTH }, 1);
        assert_eq!(coarse.leaves, [[1.5]]);
    }

    #[test]
    fn leaves_keep_weighted_shares() {
        let x = Array2::from_shape_fn((4, 1), |_| 1.0);
        let targets = Targets::Classes { codes: &[0, 0, 0, 1], weights: &[1.0, 3.0] };
        let tree = Tree::grow(&x, targets, (0..4).collect(), GROWTH, 1);
        assert_eq!(tree.leaves, [[0.5, 0.5]]);
    }

    #[test]
    fn a_forest_is_the_same_for_a_seed() {
        let (x, codes) = data();
        let targets = Targets::Classes { codes: &codes, weights: &[1.0, 1.0] };
        let growth = Growth { tried: 1, ..GROWTH };
        let one = forest(&x, targets, 7, 100, growth, 3);
        assert_eq!(one.len(), 7);
        assert_eq!(one, forest(&x, targets, 7, 100, growth, 3));
        assert_ne!(one, forest(&x, targets, 7, 100, growth, 4));
        assert_ne!(one[0], one[1]);
        assert_eq!(one[..3], forest(&x, targets, 3, 100, growth, 3), "a tree does not depend on how many there are");
    }
}
