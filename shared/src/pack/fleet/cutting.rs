//! What an idle piece of a GPU is worth: the cutting-stock problem of the mix.
//!
//! GPUs are stock of length 1000, shares are the lengths to be cut from it, each as often as the mix says. The linear
//! program that cuts all of them from the fewest GPUs has a dual price for each length, and the worth of an idle
//! piece is the dearest set of lengths that it holds. A share of 810 with nothing to fill the other 190 costs
//! nearly a whole GPU, so a piece of 810 is worth nearly a GPU, and a piece of 190 nearly nothing.
//!
//! Solved by column generation (Gilmore and Gomory, 1961): cutting patterns are the columns, found by a knapsack at
//! the present prices; the basis has one pattern a length, and its inverse is kept up to date. A few dozen lengths
//! take well under a millisecond.

use std::collections::BTreeMap;

use super::node::GPU_MILLI;

const GPU: usize = GPU_MILLI as usize;

/// Rounds of column generation, each with one better pattern. The prices are good long before they are exact.
const ROUNDS_MAX: usize = 1000;

/// A pattern counts as better only if it gains this much of a GPU: below it is rounding.
const GAIN_MIN: f64 = 1e-9;

/// What one more share of each length costs, in parts of a GPU: the dual prices, ascending by length.
///
/// `shares`: lengths below a whole GPU, each with how often it is asked for. What is none is left out.
pub(super) fn prices(shares: &BTreeMap<u16, u64>) -> Vec<Item> {
    let shares: Vec<(usize, f64)> = shares
        .iter()
        .filter(|&(&milli, &often)| milli > 0 && milli < GPU_MILLI && often > 0)
        .map(|(&milli, &often)| (usize::from(milli), often as f64))
        .collect();
    let lengths: Vec<usize> = shares.iter().map(|share| share.0).collect();
    let mut basis = Basis::new(&lengths, &shares.iter().map(|share| share.1).collect::<Vec<_>>());
    for _ in 0..ROUNDS_MAX {
        let items = items(&lengths, &basis.prices());
        // Cutting more than is asked for costs nothing, so no price is below nothing.
        let better = match items.iter().position(|item| item.worth < -GAIN_MIN) {
            Some(place) => {
                let mut pattern = vec![0; lengths.len()];
                pattern[place] = -1;
                Some((pattern, 0.0))
            }
            None => {
                let (worth, pattern) = Knapsack::fill(&items).pattern(&items);
                (worth > 1.0 + GAIN_MIN).then_some((pattern, 1.0))
            }
        };
        let Some((pattern, cost)) = better else { break };
        if !basis.enter(&pattern, cost) {
            break;
        }
    }
    items(&lengths, &basis.prices())
}

/// The dearest set of these items that fits each piece of a GPU, from nothing to the whole.
pub(super) fn fill(items: &[Item]) -> Vec<f64> {
    Knapsack::fill(items).worth
}

/// Something that can be cut from a GPU.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    /// Its length, in thousandths of a GPU: from 1 to 1000.
    pub length: usize,
    /// What it is worth, in parts of a GPU.
    pub worth: f64,
}

fn items(lengths: &[usize], prices: &[f64]) -> Vec<Item> {
    lengths.iter().zip(prices).map(|(&length, &worth)| Item { length, worth }).collect()
}

/// One pattern for each length, how many GPUs are cut by it, and the inverse of the matrix of patterns.
struct Basis {
    inverse: Vec<Vec<f64>>,
    used: Vec<f64>,
    /// What each pattern costs: a GPU, or nothing where it stands for cutting too much.
    costs: Vec<f64>,
}

impl Basis {
    /// Each length by itself, as often as it fits a GPU.
    fn new(lengths: &[usize], demand: &[f64]) -> Self {
        let size = lengths.len();
        let fits = |length: usize| (GPU / length) as f64;
        let row = |i: usize| (0..size).map(|j| if i == j { 1.0 / fits(lengths[i]) } else { 0.0 }).collect();
        let used = lengths.iter().zip(demand).map(|(&length, often)| often / fits(length)).collect();
        Self { inverse: (0..size).map(row).collect(), used, costs: vec![1.0; size] }
    }

    /// What one more of each length costs, in GPUs.
    fn prices(&self) -> Vec<f64> {
        let price = |j: usize| self.inverse.iter().zip(&self.costs).map(|(row, cost)| row[j] * cost).sum();
        (0..self.used.len()).map(price).collect()
    }

    /// Exchanges the pattern that runs out first for this one. Ties go to the lowest place, so that the same
    /// mix gives the same prices everywhere. False where there is none to exchange.
    fn enter(&mut self, pattern: &[i32], cost: f64) -> bool {
        let column: Vec<f64> = self
            .inverse
            .iter()
            .map(|row| row.iter().zip(pattern).map(|(cell, &times)| cell * f64::from(times)).sum())
            .collect();
        let mut leaving: Option<(usize, f64)> = None;
        for (place, (&used, &rate)) in self.used.iter().zip(&column).enumerate() {
            if rate > GAIN_MIN && leaving.is_none_or(|(_, least)| used / rate < least) {
                leaving = Some((place, used / rate));
            }
        }
        let Some((place, step)) = leaving else { return false };
        let pivot: Vec<f64> = self.inverse[place].iter().map(|cell| cell / column[place]).collect();
        for (row, &rate) in column.iter().enumerate() {
            if row == place {
                continue;
            }
            self.used[row] = (self.used[row] - step * rate).max(0.0);
            self.inverse[row].iter_mut().zip(&pivot).for_each(|(cell, pivot)| *cell -= rate * pivot);
        }
        self.used[place] = step;
        self.costs[place] = cost;
        self.inverse[place] = pivot;
        true
    }
}

/// The dearest filling of every piece from 0 to 1000.
struct Knapsack {
    worth: Vec<f64>,
    /// The length put last, or none where one thousandth is left empty.
    last: Vec<Option<usize>>,
}

impl Knapsack {
    fn fill(items: &[Item]) -> Self {
        let mut sack = Self { worth: vec![0.0; GPU + 1], last: vec![None; GPU + 1] };
        for piece in 1..=GPU {
            sack.worth[piece] = sack.worth[piece - 1];
            for (place, item) in items.iter().enumerate() {
                let Some(rest) = piece.checked_sub(item.length) else { continue };
                if sack.worth[rest] + item.worth > sack.worth[piece] {
                    sack.worth[piece] = sack.worth[rest] + item.worth;
                    sack.last[piece] = Some(place);
                }
            }
        }
        sack
    }

    /// The dearest pattern of a whole GPU, and its price.
    fn pattern(&self, items: &[Item]) -> (f64, Vec<i32>) {
        let mut pattern = vec![0; items.len()];
        let mut piece = GPU;
        while piece > 0 {
            match self.last[piece] {
                Some(place) => {
                    pattern[place] += 1;
                    piece -= items[place].length;
                }
                None => piece -= 1,
            }
        }
        (self.worth[GPU], pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(shares: &[(u16, u64)], pieces: &[(usize, f64)]) {
        let worth = fill(&prices(&shares.iter().copied().collect()));
        for &(piece, expect) in pieces {
            assert!((worth[piece] - expect).abs() < 1e-6, "{piece} is worth {}, not {expect}", worth[piece]);
        }
    }

    #[test]
    fn a_piece_is_worth_what_can_be_cut_from_it() {
        check(&[(500, 1)], &[(0, 0.0), (499, 0.0), (500, 0.5), (999, 0.5), (1000, 1.0)]);
    }

    #[test]
    fn a_share_that_nothing_goes_beside_is_worth_a_gpu() {
        check(&[(810, 10)], &[(190, 0.0), (809, 0.0), (810, 1.0)]);
    }

    #[test]
    fn fillers_in_plenty_are_worth_their_size() {
        check(&[(800, 1), (200, 1000)], &[(200, 0.2), (800, 0.8)]);
    }

    #[test]
    fn fillers_that_are_scarce_are_worth_nothing_more() {
        // Each 200 can go beside an 800 that is there anyway.
        check(&[(800, 10), (200, 1)], &[(200, 0.0), (800, 1.0)]);
    }

    #[test]
    fn what_is_no_share_is_not_cut() {
        check(&[], &[(999, 0.0), (1000, 0.0)]);
        check(&[(1000, 5), (0, 5)], &[(999, 0.0), (1000, 0.0)]);
    }

    #[test]
    fn the_prices_pack_the_mix_into_the_fewest_gpus() {
        // Duality: demand at its prices costs what the best packing uses. 3 × 600 and 3 × 400 fill three GPUs, and
        // 2 × 300 with one 400 a fourth.
        let shares = [(600, 3), (400, 4), (300, 2)];
        let prices = prices(&BTreeMap::from(shares));
        let cost: f64 = prices.iter().zip([2.0, 4.0, 3.0]).map(|(item, often)| item.worth * often).sum();
        assert!((cost - 4.0).abs() < 1e-6, "{cost}");
    }
}
