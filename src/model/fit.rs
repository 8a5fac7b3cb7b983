//! Calls the algorithms: linfa for all but trees, whose results are taken over into [`Fitted`].

use std::collections::HashMap;

use linfa::composing::platt_scaling::{PlattParams, platt_newton_method};
use linfa::traits::Fit;
use linfa::{Dataset, ParamGuard};
use linfa_bayes::GaussianNb;
use linfa_elasticnet::ElasticNet;
use linfa_linear::LinearRegression;
use linfa_logistic::{LogisticRegression, MultiLogisticRegression};
use linfa_svm::Svm;
use ndarray::{Array1, Array2};
use serde::Deserialize;

use crate::model::fitted::{Fitted, Gaussian, Kernel, Machine, Points};
use crate::model::params::{Chosen, KernelChoice, Settings};
use crate::model::train::TrainError;
use crate::model::tree::{Growth, Quality, Targets, Tree, forest};

/// Training rows that a support vector machine bears: it keeps a number for each pair of rows.
const MOST_SVM_ROWS: usize = 12_000;

/// What is learned from, row by row.
#[derive(Debug, Clone)]
pub enum Truth {
    /// Code of each row's class, and how many classes there are.
    Classes { codes: Vec<usize>, count: usize },
    /// Each row's number.
    Numbers(Vec<f64>),
}

/// Learns.
///
/// # Errors
/// [`TrainError::Fit`] if the algorithm finds no solution, or one that is not of finite numbers; [`TrainError::Data`] if there are
/// too many rows for it.
pub fn fit(x: Array2<f64>, truth: &Truth, settings: &Settings, seed: u64) -> Result<Fitted, TrainError> {
    let width = x.ncols();
    let fitted = match (&settings.algorithm, truth) {
        (Chosen::Linear, Truth::Numbers(numbers)) => linear(x, numbers)?,
        (Chosen::ElasticNet { penalty, l1_ratio, max_iterations, tolerance }, Truth::Numbers(numbers)) => {
            let net = ElasticNet::params().penalty(*penalty).l1_ratio(*l1_ratio);
            let net = net.max_iterations(*max_iterations).tolerance(*tolerance);
            let net = net
                .fit(&Dataset::new(x, Array1::from(numbers.clone())))
                .map_err(|error| failed("elastic-net", &error))?;
            Fitted::Linear { intercept: net.intercept(), weights: net.hyperplane().to_vec() }
        }
        (Chosen::Logistic { alpha, max_iterations, tolerance }, Truth::Classes { codes, count }) => {
            logistic(x, codes, *count, (*alpha, *max_iterations, *tolerance))?
        }
        (Chosen::NaiveBayes { smoothing }, Truth::Classes { codes, count }) => {
            naive_bayes(x, codes, *count, *smoothing)?
        }
        (Chosen::DecisionTree { .. } | Chosen::RandomForest { .. }, _) => trees(&x, truth, settings, seed),
        (Chosen::Svm { kernel, .. }, _) => svm(&x, truth, settings, kernel_of(*kernel, width))?,
        (Chosen::Knn { neighbours }, _) => Fitted::Knn {
            neighbours: (*neighbours).min(x.nrows()),
            targets: match truth {
                Truth::Classes { codes, .. } => codes.iter().map(|code| *code as f64).collect(),
                Truth::Numbers(numbers) => numbers.clone(),
            },
            points: Points(x),
        },
        (Chosen::Linear | Chosen::ElasticNet { .. }, Truth::Classes { .. })
        | (Chosen::Logistic { .. } | Chosen::NaiveBayes { .. }, Truth::Numbers(_)) => {
            return Err(TrainError::Setting("the algorithm does not fit the task".to_owned()));
        }
    };
    check_finite(&fitted)?;
    Ok(fitted)
}

/// Where to look if numbers did not work out.
const SUSPECTS: &str = "look for columns that are nearly copies of each other, or of very large numbers";

fn failed(algorithm: &str, error: &dyn std::fmt::Display) -> TrainError {
    TrainError::Fit(format!("`{algorithm}` found no solution ({error}); {SUSPECTS}"))
}

fn check_finite(fitted: &Fitted) -> Result<(), TrainError> {
    let finite = |numbers: &[f64]| numbers.iter().all(|number| number.is_finite());
    let sound = match fitted {
        Fitted::Linear { intercept, weights } | Fitted::Logistic { intercept, weights } => {
            intercept.is_finite() && finite(weights)
        }
        Fitted::Softmax { intercepts, weights } => finite(intercepts) && weights.iter().all(|row| finite(row)),
        Fitted::NaiveBayes { classes } => {
            classes.iter().all(|class| finite(&class.mean) && class.variance.iter().all(|x| x.is_finite() && *x > 0.0))
        }
        Fitted::Svm { machines, .. } => machines.iter().all(|machine| {
            let (a, b) = machine.platt.unwrap_or_default();
            finite(&machine.alpha) && finite(&[machine.rho, a, b])
        }),
        // Made of means and shares of finite numbers.
        Fitted::Trees { .. } | Fitted::Knn { .. } => true,
    };
    let failed = || TrainError::Fit(format!("what was learned is not of finite numbers (NaN); {SUSPECTS}"));
    if sound { Ok(()) } else { Err(failed()) }
}

fn linear(x: Array2<f64>, numbers: &[f64]) -> Result<Fitted, TrainError> {
    if x.nrows() <= x.ncols() {
        return Err(TrainError::Data(format!(
            "`linear` needs more training rows ({}) than numbers to weigh ({}); use `elastic-net`",
            x.nrows(),
            x.ncols()
        )));
    }
    let advice = "some columns may be copies or sums of others: drop them, or use `elastic-net`";
    let spread = deviation(numbers);
    let fitted = LinearRegression::default()
        .fit(&Dataset::new(x, Array1::from(numbers.to_vec())))
        .map_err(|error| TrainError::Fit(format!("`linear` found no solution ({error}); {advice}")))?;
    // Numbers are standardized, so a weight far beyond the target's own spread is rounding that cancels out.
    if fitted.params().iter().any(|weight| weight.abs() > 1e6 * spread) {
        return Err(TrainError::Fit(format!("`linear` found no stable solution; {advice}")));
    }
    Ok(Fitted::Linear { intercept: fitted.intercept(), weights: fitted.params().to_vec() })
}

fn deviation(numbers: &[f64]) -> f64 {
    let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
    (numbers.iter().map(|number| (number - mean).powi(2)).sum::<f64>() / numbers.len() as f64).sqrt()
}

fn logistic(
    x: Array2<f64>,
    codes: &[usize],
    count: usize,
    (alpha, max_iterations, tolerance): (f64, u64, f64),
) -> Result<Fitted, TrainError> {
    let data = Dataset::new(x, Array1::from(codes.to_vec()));
    if count == 2 {
        let model =
            LogisticRegression::default().alpha(alpha).max_iterations(max_iterations).gradient_tolerance(tolerance);
        let model = model.fit(&data).map_err(|error| failed("logistic", &error))?;
        // linfa calls the larger class positive; here the probability is of the second.
        let sign = if model.labels().pos.class == 1 { 1.0 } else { -1.0 };
        let weights = model.params().iter().map(|weight| sign * weight).collect();
        return Ok(Fitted::Logistic { intercept: sign * model.intercept(), weights });
    }
    let model =
        MultiLogisticRegression::default().alpha(alpha).max_iterations(max_iterations).gradient_tolerance(tolerance);
    let model = model.fit(&data).map_err(|error| failed("logistic", &error))?;
    let weights = model.params().columns().into_iter().map(|column| column.to_vec()).collect();
    Ok(Fitted::Softmax { intercepts: model.intercept().to_vec(), weights })
}

/// linfa keeps these fields to itself, but serialises them.
#[derive(Deserialize)]
struct StoredBayes {
    class_info: HashMap<usize, StoredClass>,
}

#[derive(Deserialize)]
struct StoredClass {
    prior: f64,
    theta: Array1<f64>,
    sigma: Array1<f64>,
}

fn naive_bayes(x: Array2<f64>, codes: &[usize], count: usize, smoothing: f64) -> Result<Fitted, TrainError> {
    let model = GaussianNb::params().var_smoothing(smoothing);
    let model =
        model.fit(&Dataset::new(x, Array1::from(codes.to_vec()))).map_err(|error| failed("naive-bayes", &error))?;
    let stored = serde_json::to_value(&model).and_then(serde_json::from_value::<StoredBayes>);
    let mut stored = stored.map_err(|error| failed("naive-bayes", &error))?;
    let gaussian = |class: StoredClass| Gaussian {
        prior: class.prior,
        mean: class.theta.to_vec(),
        variance: class.sigma.to_vec(),
    };
    let classes: Vec<Gaussian> = (0..count).filter_map(|code| stored.class_info.remove(&code)).map(gaussian).collect();
    Ok(Fitted::NaiveBayes { classes })
}

fn trees(x: &Array2<f64>, truth: &Truth, settings: &Settings, seed: u64) -> Fitted {
    let width = x.ncols();
    let weights = class_weights(truth, settings.balanced);
    let offset = match truth {
        Truth::Classes { .. } => 0.0,
        Truth::Numbers(numbers) => numbers.iter().sum::<f64>() / numbers.len() as f64,
    };
    // Sums of squares are exact enough only near 0.
    let centered: Vec<f64> = match truth {
        Truth::Classes { .. } => Vec::new(),
        Truth::Numbers(numbers) => numbers.iter().map(|number| number - offset).collect(),
    };
    let targets = match truth {
        Truth::Classes { codes, .. } => Targets::Classes { codes, weights: &weights },
        Truth::Numbers(_) => Targets::Numbers(&centered),
    };
    let grown = match settings.algorithm {
        Chosen::RandomForest { trees, max_depth, min_split, min_leaf, features, sample, quality } => {
            let usual = match truth {
                Truth::Classes { .. } => (width as f64).sqrt(),
                Truth::Numbers(_) => width as f64 / 3.0,
            };
            let tried = features.map_or(usual, |share| share * width as f64).round().clamp(1.0, width as f64) as usize;
            let growth = Growth { max_depth, min_split, min_leaf, tried, quality };
            let sample = (sample * x.nrows() as f64).ceil() as usize;
            forest(x, targets, trees, sample, growth, seed)
        }
        Chosen::DecisionTree { max_depth, min_split, min_leaf, quality } => {
            let growth = Growth { max_depth, min_split, min_leaf, tried: width, quality };
            vec![Tree::grow(x, targets, (0..x.nrows() as u32).collect(), growth, seed)]
        }
        Chosen::Linear
        | Chosen::ElasticNet { .. }
        | Chosen::Logistic { .. }
        | Chosen::NaiveBayes { .. }
        | Chosen::Svm { .. }
        | Chosen::Knn { .. } => {
            let growth = Growth { max_depth: 1, min_split: 2, min_leaf: 1, tried: width, quality: Quality::Gini };
            vec![Tree::grow(x, targets, (0..x.nrows() as u32).collect(), growth, seed)]
        }
    };
    Fitted::Trees { offset, trees: grown }
}

/// How much a row of each class counts: 1, or such that all classes count the same in all.
fn class_weights(truth: &Truth, balanced: bool) -> Vec<f64> {
    let Truth::Classes { codes, count } = truth else { return Vec::new() };
    if !balanced {
        return vec![1.0; *count];
    }
    let mut rows = vec![0usize; *count];
    codes.iter().for_each(|code| rows[*code] += 1);
    rows.into_iter().map(|rows| codes.len() as f64 / (*count * rows.max(1)) as f64).collect()
}

fn kernel_of(choice: KernelChoice, width: usize) -> Kernel {
    match choice {
        KernelChoice::Linear => Kernel::Linear,
        KernelChoice::Gaussian { width: given } => Kernel::Gaussian { width: given.unwrap_or(width as f64) },
        KernelChoice::Polynomial { constant, degree } => Kernel::Polynomial { constant, degree },
    }
}

fn svm(x: &Array2<f64>, truth: &Truth, settings: &Settings, kernel: Kernel) -> Result<Fitted, TrainError> {
    if x.nrows() > MOST_SVM_ROWS {
        return Err(TrainError::Data(format!(
            "`svm` keeps a number for each pair of rows, so it learns from at most {MOST_SVM_ROWS} rows, and there are {}; use `logistic` or `random-forest`",
            x.nrows()
        )));
    }
    let machines = match truth {
        Truth::Numbers(numbers) => vec![regression_machine(x, numbers, settings, kernel)?],
        Truth::Classes { codes, count } => {
            let weights = class_weights(truth, settings.balanced);
            // For two classes one machine says how likely the second is.
            let asked = if *count == 2 { 1..2 } else { 0..*count };
            let rest = |class: usize| {
                weights.iter().enumerate().filter(|(other, _)| *other != class).map(|(_, weight)| *weight).sum::<f64>()
            };
            asked
                .map(|class| {
                    let is: Vec<bool> = codes.iter().map(|code| *code == class).collect();
                    let others = rest(class) / (*count - 1) as f64;
                    class_machine(x, &is, (weights[class], others), settings, kernel)
                })
                .collect::<Result<_, _>>()?
        }
    };
    Ok(Fitted::Svm { kernel, machines })
}

fn svm_settings(settings: &Settings) -> (f64, f64, f64) {
    match settings.algorithm {
        Chosen::Svm { c, tolerance, epsilon, .. } => (c, tolerance, epsilon),
        Chosen::Linear
        | Chosen::ElasticNet { .. }
        | Chosen::Logistic { .. }
        | Chosen::DecisionTree { .. }
        | Chosen::RandomForest { .. }
        | Chosen::NaiveBayes { .. }
        | Chosen::Knn { .. } => (1.0, 1e-3, 0.1),
    }
}

/// Keeps the rows that carry weight. linfa's own bound for "none" is taken over.
fn machine<T>(x: &Array2<f64>, svm: &Svm<f64, T>) -> Machine {
    let carries = |alpha: &f64| alpha.abs() > 100.0 * f64::EPSILON;
    let kept: Vec<(f64, Vec<f64>)> = svm
        .alpha
        .iter()
        .zip(x.rows())
        .filter(|(alpha, _)| carries(alpha))
        .map(|(alpha, row)| (*alpha, row.to_vec()))
        .collect();
    let (alpha, vectors) = kept.into_iter().unzip();
    Machine { alpha, vectors, rho: svm.rho, platt: None }
}

fn regression_machine(
    x: &Array2<f64>,
    numbers: &[f64],
    settings: &Settings,
    kernel: Kernel,
) -> Result<Machine, TrainError> {
    let (c, tolerance, epsilon) = svm_settings(settings);
    let params = Svm::<f64, f64>::params().c_svr(c, Some(epsilon)).eps(tolerance);
    let params = match kernel {
        Kernel::Linear => params.linear_kernel(),
        Kernel::Gaussian { width } => params.gaussian_kernel(width),
        Kernel::Polynomial { constant, degree } => params.polynomial_kernel(constant, degree),
    };
    let svm =
        params.fit(&Dataset::new(x.clone(), Array1::from(numbers.to_vec()))).map_err(|error| failed("svm", &error))?;
    Ok(machine(x, &svm))
}

fn class_machine(
    x: &Array2<f64>,
    is: &[bool],
    (own, others): (f64, f64),
    settings: &Settings,
    kernel: Kernel,
) -> Result<Machine, TrainError> {
    let (c, tolerance, _) = svm_settings(settings);
    let params = Svm::<f64, bool>::params().pos_neg_weights(c * own, c * others).eps(tolerance);
    let params = match kernel {
        Kernel::Linear => params.linear_kernel(),
        Kernel::Gaussian { width } => params.gaussian_kernel(width),
        Kernel::Polynomial { constant, degree } => params.polynomial_kernel(constant, degree),
    };
    let targets = Array1::from(is.to_vec());
    let svm = params.fit(&Dataset::new(x.clone(), targets.clone())).map_err(|error| failed("svm", &error))?;
    let mut machine = machine(x, &svm);
    let values: Array1<f64> = x.rows().into_iter().map(|row| machine.value(kernel, &row.to_vec())).collect();
    let platt = PlattParams::<f64, ()>::default().check().map_err(|error| failed("svm", &error))?;
    machine.platt =
        Some(platt_newton_method(values.view(), targets.view(), &platt).map_err(|error| failed("svm", &error))?);
    Ok(machine)
}
