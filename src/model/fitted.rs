//! What an algorithm has learned, in the form in which the model file keeps it, and how it predicts.
//!
//! No type of a training library is stored: the file stays readable when those change.

use linfa_nn::distance::L2Dist;
use linfa_nn::{LinearSearch, NearestNeighbour};
use ndarray::{Array2, ArrayView1};
use serde::{Deserialize, Serialize};

use crate::model::tree::Tree;

/// What was learned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "form", rename_all = "snake_case")]
pub enum Fitted {
    /// A number: intercept + weights · x.
    Linear {
        /// Added.
        intercept: f64,
        /// One for each number.
        weights: Vec<f64>,
    },
    /// Two classes: probability of the second by the logistic function of intercept + weights · x.
    Logistic {
        /// Added.
        intercept: f64,
        /// One for each number.
        weights: Vec<f64>,
    },
    /// Several classes: softmax of intercept + weights · x of each.
    Softmax {
        /// One for each class.
        intercepts: Vec<f64>,
        /// For each class one for each number.
        weights: Vec<Vec<f64>>,
    },
    /// Classes' shares or a number: offset + the mean of the trees' leaves.
    Trees {
        /// Added to numbers; 0 for classes.
        offset: f64,
        /// One or many.
        trees: Vec<Tree>,
    },
    /// Classes by Gaussian naive Bayes.
    NaiveBayes {
        /// One for each class.
        classes: Vec<Gaussian>,
    },
    /// Two classes by one machine, several by one machine for each against the rest; numbers by one.
    Svm {
        /// Same for all machines.
        kernel: Kernel,
        /// The machines.
        machines: Vec<Machine>,
    },
    /// The nearest training rows' classes or mean.
    Knn {
        /// How many are asked.
        neighbours: usize,
        /// The training rows.
        points: Points,
        /// Class code or number of each.
        targets: Vec<f64>,
    },
}

/// One class in naive Bayes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gaussian {
    /// Share of the training rows.
    pub prior: f64,
    /// Mean of each number.
    pub mean: Vec<f64>,
    /// Variance of each number.
    pub variance: Vec<f64>,
}

/// How alike two rows are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Kernel {
    /// x · y
    Linear,
    /// exp(-|x - y|² / width)
    Gaussian {
        /// Greater: smoother.
        width: f64,
    },
    /// (x · y + constant)^degree
    Polynomial {
        /// Added.
        constant: f64,
        /// Power.
        degree: f64,
    },
}

/// One support vector machine: the sum of alpha · kernel(vector, x), less rho.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// One for each vector.
    pub alpha: Vec<f64>,
    /// The support vectors.
    pub vectors: Vec<Vec<f64>>,
    /// Subtracted.
    pub rho: f64,
    /// For classes: probability 1 / (1 + exp(a · value + b)).
    pub platt: Option<(f64, f64)>,
}

/// Rows of numbers, kept as a matrix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Vec<f64>>", into = "Vec<Vec<f64>>")]
pub struct Points(pub Array2<f64>);

impl From<Points> for Vec<Vec<f64>> {
    fn from(points: Points) -> Self {
        points.0.rows().into_iter().map(|row| row.to_vec()).collect()
    }
}

impl TryFrom<Vec<Vec<f64>>> for Points {
    type Error = String;

    fn try_from(rows: Vec<Vec<f64>>) -> Result<Self, String> {
        let width = rows.first().map_or(0, Vec::len);
        if rows.iter().any(|row| row.len() != width) {
            return Err("the training rows are not all of one width".to_owned());
        }
        let shape = (rows.len(), width);
        Array2::from_shape_vec(shape, rows.concat()).map(Points).map_err(|error| error.to_string())
    }
}

impl Fitted {
    /// For classes: the probability of each, summing to 1. For numbers: the one number. `row` has as many numbers as the
    /// model was trained with.
    pub fn predict(&self, row: &[f64], classes: usize) -> Vec<f64> {
        match self {
            Fitted::Linear { intercept, weights } => vec![intercept + dot(weights, row)],
            Fitted::Logistic { intercept, weights } => {
                let probability = logistic(intercept + dot(weights, row));
                vec![1.0 - probability, probability]
            }
            Fitted::Softmax { intercepts, weights } => {
                let values = intercepts.iter().zip(weights).map(|(intercept, weights)| intercept + dot(weights, row));
                softmax(values.collect())
            }
            Fitted::Trees { offset, trees } => mean_of_leaves(trees, row, *offset),
            Fitted::NaiveBayes { classes } => softmax(classes.iter().map(|class| class.log_likelihood(row)).collect()),
            Fitted::Svm { kernel, machines } => svm(*kernel, machines, row, classes),
            Fitted::Knn { neighbours, points, targets } => knn(*neighbours, points, targets, row, classes),
        }
    }

    /// Why a model read from a file cannot predict rows of `width` numbers, if so. `classes` is 0 for numbers.
    pub fn fault(&self, width: usize, classes: usize) -> Option<&'static str> {
        let values = classes.max(1);
        let sound = match self {
            Fitted::Linear { weights, .. } => weights.len() == width && classes == 0,
            Fitted::Logistic { weights, .. } => weights.len() == width && classes == 2,
            Fitted::Softmax { intercepts, weights } => {
                intercepts.len() == values && weights.len() == values && weights.iter().all(|row| row.len() == width)
            }
            Fitted::Trees { trees, .. } => !trees.is_empty() && trees.iter().all(|tree| tree.is_sound(width, values)),
            Fitted::NaiveBayes { classes: gaussians } => {
                let fits = |class: &Gaussian| class.mean.len() == width && class.variance.len() == width;
                gaussians.len() == values && gaussians.iter().all(fits)
            }
            Fitted::Svm { machines, .. } => {
                let fits = |machine: &Machine| {
                    machine.alpha.len() == machine.vectors.len()
                        && machine.vectors.iter().all(|vector| vector.len() == width)
                        && machine.platt.is_some() == (classes > 0)
                };
                machines.len() == if classes > 2 { classes } else { 1 } && machines.iter().all(fits)
            }
            Fitted::Knn { neighbours, points, targets } => {
                let is_class = |target: &f64| *target >= 0.0 && *target < classes as f64;
                *neighbours > 0
                    && !targets.is_empty()
                    && points.0.dim() == (targets.len(), width)
                    && (classes == 0 || targets.iter().all(is_class))
            }
        };
        (!sound).then_some("what was learned does not fit its columns and classes")
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn logistic(value: f64) -> f64 {
    1.0 / (1.0 + (-value).exp())
}

fn softmax(values: Vec<f64>) -> Vec<f64> {
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = values.into_iter().map(|value| (value - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

fn mean_of_leaves(trees: &[Tree], row: &[f64], offset: f64) -> Vec<f64> {
    let mut sums: Vec<f64> = Vec::new();
    for tree in trees {
        let leaf = tree.leaf(row);
        sums.resize(leaf.len(), 0.0);
        sums.iter_mut().zip(leaf).for_each(|(sum, value)| *sum += value);
    }
    sums.into_iter().map(|sum| offset + sum / trees.len() as f64).collect()
}

impl Gaussian {
    fn log_likelihood(&self, row: &[f64]) -> f64 {
        let each = row
            .iter()
            .zip(&self.mean)
            .zip(&self.variance)
            .map(|((x, mean), variance)| (std::f64::consts::TAU * variance).ln() + (x - mean).powi(2) / variance);
        self.prior.ln() - 0.5 * each.sum::<f64>()
    }
}

impl Kernel {
    fn of(self, a: &[f64], b: &[f64]) -> f64 {
        match self {
            Kernel::Linear => dot(a, b),
            Kernel::Gaussian { width } => {
                let distance: f64 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
                (-distance / width).exp()
            }
            Kernel::Polynomial { constant, degree } => (dot(a, b) + constant).powf(degree),
        }
    }
}

impl Machine {
    /// The machine's value for a row: for two classes, above 0 on the second's side.
    pub fn value(&self, kernel: Kernel, row: &[f64]) -> f64 {
        let sum: f64 = self.alpha.iter().zip(&self.vectors).map(|(alpha, vector)| alpha * kernel.of(vector, row)).sum();
        sum - self.rho
    }
}

fn svm(kernel: Kernel, machines: &[Machine], row: &[f64], classes: usize) -> Vec<f64> {
    let probability = |machine: &Machine| {
        let (a, b) = machine.platt.unwrap_or((-1.0, 0.0));
        logistic(-(a * machine.value(kernel, row) + b))
    };
    match machines {
        [only] if classes == 0 => vec![only.value(kernel, row)],
        [only] => {
            let second = probability(only);
            vec![1.0 - second, second]
        }
        several => {
            let each: Vec<f64> = several.iter().map(probability).collect();
            let sum: f64 = each.iter().sum();
            // All machines saying "surely not mine" still has to end in one answer.
            if sum > 0.0 {
                each.into_iter().map(|value| value / sum).collect()
            } else {
                vec![1.0 / classes as f64; classes]
            }
        }
    }
}

fn knn(neighbours: usize, points: &Points, targets: &[f64], row: &[f64], classes: usize) -> Vec<f64> {
    // A scan, not a tree: a tree would have to be rebuilt for each request, since it borrows its points.
    let index = LinearSearch.from_batch(&points.0, L2Dist).ok();
    let near = index.as_ref().and_then(|index| index.k_nearest(ArrayView1::from(row), neighbours).ok());
    // Both are errors only of widths that do not fit, which `fault` has ruled out.
    let near: Vec<f64> = near.unwrap_or_default().into_iter().map(|(_, index)| targets[index]).collect();
    let count = near.len().max(1) as f64;
    if classes == 0 {
        return vec![near.iter().sum::<f64>() / count];
    }
    let mut shares = vec![0.0; classes];
    for class in near {
        shares[class as usize] += 1.0 / count;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fitted: &Fitted, row: &[f64], classes: usize, expected: &[f64]) {
        assert_eq!(fitted.fault(row.len(), classes), None);
        let got = fitted.predict(row, classes);
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-9, "{got} is not {expected}: {fitted:?}");
        }
        let text = serde_json::to_string(fitted).expect("serialises");
        assert_eq!(serde_json::from_str::<Fitted>(&text).expect("reads back"), *fitted);
    }

    #[test]
    fn each_form_predicts_by_its_formula() {
        check(&Fitted::Linear { intercept: 1.0, weights: vec![2.0, 3.0] }, &[1.0, -1.0], 0, &[0.0]);
        let probability = 1.0 / (1.0 + (-1.0f64).exp());
        let logistic = Fitted::Logistic { intercept: 0.0, weights: vec![1.0] };
        check(&logistic, &[1.0], 2, &[1.0 - probability, probability]);
        let softmax = Fitted::Softmax { intercepts: vec![0.0, 2f64.ln(), 5f64.ln()], weights: vec![vec![0.0]; 3] };
        check(&softmax, &[1.0], 3, &[0.125, 0.25, 0.625]);
        let gaussian = |mean: f64| Gaussian { prior: 0.5, mean: vec![mean], variance: vec![1.0] };
        let bayes = Fitted::NaiveBayes { classes: vec![gaussian(-1.0), gaussian(1.0)] };
        check(&bayes, &[0.0], 2, &[0.5, 0.5]);
        let points = Points(Array2::from_shape_vec((3, 1), vec![0.0, 1.0, 5.0]).expect("a matrix"));
        let knn = |targets: &[f64]| Fitted::Knn { neighbours: 2, points: points.clone(), targets: targets.to_vec() };
        check(&knn(&[0.0, 1.0, 1.0]), &[4.0], 2, &[0.0, 1.0]);
        check(&knn(&[10.0, 20.0, 60.0]), &[-1.0], 0, &[15.0]);
    }

    #[test]
    fn svm_of_two_classes_of_several_and_of_numbers() {
        let machine = |alpha: f64, platt| Machine { alpha: vec![alpha], vectors: vec![vec![1.0]], rho: 0.5, platt };
        let svm = |machines: Vec<Machine>| Fitted::Svm { kernel: Kernel::Linear, machines };
        check(&svm(vec![machine(2.0, None)]), &[3.0], 0, &[5.5]);
        check(&svm(vec![machine(2.0, Some((-1.0, 0.0)))]), &[0.25], 2, &[0.5, 0.5]);
        let three = vec![machine(1.0, Some((0.0, 0.0))); 3];
        check(&svm(three), &[1.0], 3, &[1.0 / 3.0; 3]);
        assert!((Kernel::Gaussian { width: 2.0 }.of(&[1.0, 0.0], &[0.0, 1.0]) - (-1f64).exp()).abs() < 1e-12);
        assert_eq!(Kernel::Polynomial { constant: 1.0, degree: 2.0 }.of(&[2.0], &[1.0]), 9.0);
    }

    #[test]
    fn a_form_that_does_not_fit_is_a_fault() {
        assert!(Fitted::Linear { intercept: 0.0, weights: vec![1.0] }.fault(2, 0).is_some());
        assert!(Fitted::Logistic { intercept: 0.0, weights: vec![1.0] }.fault(1, 3).is_some());
        assert!(Fitted::Trees { offset: 0.0, trees: vec![] }.fault(1, 2).is_some());
        let points = Points(Array2::zeros((1, 1)));
        assert!(Fitted::Knn { neighbours: 1, points, targets: vec![7.0] }.fault(1, 2).is_some());
    }
}
