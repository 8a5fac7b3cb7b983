//! Which request is next: kinds by weight, mixed as evenly as they can be, and bodies in turn.
//!
//! PURE. Weights 3 and 1 give `a a b a a a b a ...`, never three minutes of `a` and then one of `b`.

/// A choice among all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Which kind.
    pub item: usize,
    /// Its how-manieth use (by this mix), for taking bodies in turn.
    pub turn: u64,
}

/// Deterministic interleaving (smooth weighted round robin): after every `sum of weights` picks each kind was taken exactly
/// as often as its weight says.
#[derive(Debug, Clone)]
pub struct Mix {
    weights: Vec<i64>,
    credit: Vec<i64>,
    turns: Vec<u64>,
    total: i64,
    step: u64,
}

impl Mix {
    /// One of `parts` mixes over the same kinds: it starts at its own place of the sequence (moved by `seed`), and takes
    /// every `parts`-th body, so that together all bodies are used in turn.
    ///
    /// Kinds with weight 0 are never picked; if all are 0 they count as 1.
    pub fn new(weights: &[u32], part: Part, seed: u64) -> Self {
        let mut weights: Vec<i64> = weights.iter().map(|weight| i64::from(*weight)).collect();
        if weights.iter().all(|weight| *weight == 0) {
            weights.iter_mut().for_each(|weight| *weight = 1);
        }
        let total = weights.iter().sum::<i64>().max(1);
        let parts = u64::from(part.of.max(1));
        let mut mix =
            Self { credit: vec![0; weights.len()], turns: vec![0; weights.len()], weights, total, step: parts };
        // A bounded walk: enough to spread the parts, cheap for weights in the millions.
        let offset = (seed.wrapping_add(u64::from(part.index))) % u64::try_from(total).unwrap_or(1).min(1009);
        for _ in 0..offset {
            mix.advance();
        }
        mix.turns.iter_mut().for_each(|turn| *turn = u64::from(part.index));
        mix
    }

    /// The next one. There must be at least one kind.
    pub fn pick(&mut self) -> Pick {
        let item = self.advance();
        let turn = self.turns[item];
        self.turns[item] = turn.wrapping_add(self.step);
        Pick { item, turn }
    }

    fn advance(&mut self) -> usize {
        if self.weights.len() == 1 {
            return 0;
        }
        let mut best = 0;
        for item in 0..self.weights.len() {
            self.credit[item] += self.weights[item];
            if self.credit[item] > self.credit[best] {
                best = item;
            }
        }
        self.credit[best] -= self.total;
        best
    }
}

/// One of several mixes that share the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// From 0.
    pub index: u32,
    /// How many there are.
    pub of: u32,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WHOLE: Part = Part { index: 0, of: 1 };

    fn picks(weights: &[u32], count: usize) -> String {
        let mut mix = Mix::new(weights, WHOLE, 0);
        (0..count).map(|_| char::from(b'a' + u8::try_from(mix.pick().item).unwrap())).collect()
    }

    #[test]
    fn kinds_are_spread() {
        assert_eq!(picks(&[1], 3), "aaa");
        assert_eq!(picks(&[3, 1], 8), "aabaaaba");
        assert_eq!(picks(&[1, 1, 1], 6), "abcabc");
        assert_eq!(picks(&[2, 0], 3), "aaa");
        assert_eq!(picks(&[0, 0], 4), "abab");
    }

    #[test]
    fn bodies_are_taken_in_turn_by_all_parts_together() {
        let mut seen: Vec<u64> = (0..3)
            .flat_map(|index| {
                let mut mix = Mix::new(&[1], Part { index, of: 3 }, 9);
                (0..4).map(move |_| mix.pick().turn).collect::<Vec<_>>()
            })
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..12).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn each_round_holds_the_weights_exactly(weights in prop::collection::vec(0u32..20, 1..6), seed in 0u64..50) {
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let round: u32 = weights.iter().sum();
            let mut mix = Mix::new(&weights, WHOLE, seed);
            let mut counts = vec![0u32; weights.len()];
            for _ in 0..round {
                counts[mix.pick().item] += 1;
            }
            prop_assert_eq!(counts, weights);
        }
    }
}
