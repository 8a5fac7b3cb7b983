//! Tables that models are trained on: made up, and always the same.

use std::fmt::Write;

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// Players of a season; `star` is what is to be known.
pub fn players(rows: usize) -> String {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(11);
    let mut table = "position,appearances,minutes,goals,assists,cards,star\n".to_owned();
    for _ in 0..rows {
        let position: u8 = random.gen_range(0..4);
        let appearances: u32 = random.gen_range(1..39);
        let minutes = appearances * random.gen_range(20..91);
        let form: f64 = random.gen_range(0.0..1.0);
        let games = f64::from(appearances);
        let goals = (games * form * if position == 1 { 0.9 } else { 0.25 }).round();
        let assists = (games * random.gen_range(0.0..0.4) * form).round();
        let cards: u8 = random.gen_range(0..9);
        // Who plays much and scores much for their position is one; some luck is in it.
        let worth =
            goals * if position == 1 { 1.0 } else { 2.4 } + assists * 1.3 + games * 0.15 - f64::from(cards) * 0.4;
        let star = u8::from(worth + random.gen_range(-4.0..4.0) > 16.0);
        // Writing to a text cannot fail.
        let _ = writeln!(table, "{position},{appearances},{minutes},{goals},{assists},{cards},{star}");
    }
    table
}

/// Customers; `left` is what is to be known.
pub fn customers(rows: usize) -> String {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(12);
    let mut table = "months,monthly,tickets,contract,discount,left\n".to_owned();
    for _ in 0..rows {
        let months: u32 = random.gen_range(1..72);
        let monthly: f64 = (random.gen_range(18.0_f64..120.0) * 100.0).round() / 100.0;
        let tickets: u32 = random.gen_range(0..9);
        let contract: u8 = random.gen_range(0..3);
        let discount: u8 = random.gen_range(0..2);
        let risk = f64::from(tickets) * 0.55 + monthly * 0.03 - f64::from(months) * 0.06 - f64::from(contract) * 1.6
            + if tickets > 5 && contract == 0 { 3.0 } else { 0.0 };
        let left = if risk + random.gen_range(-1.2..1.2) > 1.5 { "yes" } else { "no" };
        let _ = writeln!(table, "{months},{monthly},{tickets},{contract},{discount},{left}");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_always_the_same_and_have_rows_of_each_kind() {
        for (table, good) in [(players(900), ",1"), (customers(900), ",yes")] {
            let with = table.lines().filter(|line| line.ends_with(good)).count();
            assert!((90..600).contains(&with), "{with}");
        }
        assert_eq!(players(50), players(50));
        assert_eq!(customers(50), customers(50));
    }
}
