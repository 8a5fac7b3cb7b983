//! The page on which a person tries a model: a form made from its columns. No script, so it works everywhere.

use crate::words::escape;
use std::fmt::Write;

use serde_json::{Map, Value};

use crate::model::encode::{Feature, FeatureKind};
use crate::model::predict::Prediction;
use crate::model::saved::{Model, ModelTask};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}\
form{display:grid;grid-template-columns:repeat(auto-fill,minmax(13rem,1fr));gap:.75rem 1rem}label{display:block;font-size:.9rem}\
input,select{font:inherit;width:100%;box-sizing:border-box;padding:.3rem .4rem;border:1px solid #767676;border-radius:4px;background:inherit;color:inherit}\
button{font:inherit;grid-column:1/-1;justify-self:start;padding:.4rem 1.2rem;border:0;border-radius:4px;background:#0b5cad;color:#fff;cursor:pointer}\
.answer{border-left:4px solid #0b5cad;padding:.2rem 1rem;margin:1.5rem 0}.problem{border-color:#b3261e}code{overflow-wrap:anywhere}\
@media(prefers-color-scheme:dark){body{color:#eee;background:#181818}}";

/// What the form gave back.
pub enum Answer<'a> {
    /// Nothing was asked yet.
    None,
    /// The model's answer.
    Prediction(&'a Prediction),
    /// Why there is none.
    Problem(&'a str),
}

/// The whole page. `values` are those last sent, by column; typical ones stand in for the others.
pub fn render(model: &Model, values: &Map<String, Value>, answer: &Answer<'_>) -> String {
    let mut fields = String::new();
    for feature in &model.features {
        fields += &field(feature, values.get(&feature.name));
    }
    let title = format!("{} by {}", escape(&model.target), escape(&model.algorithm));
    let example: Map<String, Value> =
        model.features.iter().map(|feature| (feature.name.clone(), typical(feature))).collect();
    let example = serde_json::to_string(&example).unwrap_or_default();
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>\
         <p>Trained on {} rows. An empty field counts as not known.</p>{}\
         <form method=\"post\" action=\"/try\">{fields}<button>Predict</button></form>\
         <h2>From a program</h2><p><code>POST /predict</code> with an object, or a list of objects:</p><p><code>{}</code></p>\
         </body></html>",
        model.training.rows,
        told(model, answer),
        escape(&example),
    )
}

fn told(model: &Model, answer: &Answer<'_>) -> String {
    match answer {
        Answer::None => String::new(),
        Answer::Problem(problem) => format!("<p class=\"answer problem\" role=\"alert\">{}</p>", escape(problem)),
        Answer::Prediction(prediction) => {
            let mut text = format!(
                "<div class=\"answer\" role=\"status\"><p><b>{}: {}</b></p>",
                escape(&model.target),
                escape(&plain(&prediction.prediction))
            );
            if model.task == ModelTask::Classification {
                for (class, probability) in &prediction.probabilities {
                    let percent = probability.as_f64().unwrap_or(0.0) * 100.0;
                    write!(text, "<p>{}: {percent:.1} %</p>", escape(class))
                        .expect("writing into a String does not fail");
                }
            }
            text + "</div>"
        }
    }
}

fn field(feature: &Feature, value: Option<&Value>) -> String {
    let name = escape(&feature.name);
    let value = value.map_or_else(|| plain(&typical(feature)), plain);
    let input = match &feature.kind {
        FeatureKind::Number { .. } => {
            format!("<input type=\"number\" step=\"any\" name=\"{name}\" value=\"{}\">", escape(&value))
        }
        FeatureKind::Category { values, .. } => {
            let option = |word: &str| {
                let selected = if word == value { " selected" } else { "" };
                format!("<option{selected}>{}</option>", escape(word))
            };
            let options: String = std::iter::once("").chain(values.iter().map(String::as_str)).map(option).collect();
            format!("<select name=\"{name}\">{options}</select>")
        }
    };
    format!("<label>{name}{input}</label>")
}

/// What stands in for a missing value is the commonest or middle one.
fn typical(feature: &Feature) -> Value {
    match &feature.kind {
        FeatureKind::Number { fill, .. } => (*fill).into(),
        FeatureKind::Category { fill, .. } => fill.clone().into(),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), |number| number.to_string()),
        other => other.to_string(),
    }
}
