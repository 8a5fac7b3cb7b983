//! The body of a request for predictions: rows as JSON, read one at a time and predicted at once, so that a large or hostile body
//! takes no more memory than its answers.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::model::predict::{Prediction, Predictor, RowError};

/// Rows of one request at most.
pub const MOST_ROWS: usize = 10_000;

/// Wrong rows that one answer lists.
const MOST_TOLD: usize = 20;

/// Names in one row at most: all columns that a table may have, and as many that are wrong.
const MOST_NAMES: usize = 20_000;

/// What was asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Predicted {
    /// An object was sent.
    One(Box<Prediction>),
    /// A list of objects was sent.
    Many(Vec<Prediction>),
}

/// Why there are no predictions.
#[derive(Debug, Clone, PartialEq)]
pub enum Refused {
    /// Why it is not JSON.
    Syntax(String),
    /// JSON, but neither an object nor a list of objects.
    Shape(String),
    /// More than [`MOST_ROWS`].
    TooMany,
    /// Columns that do not fit, with the row's place from 0 if a list was sent; the first of them.
    Columns(Vec<(Option<usize>, RowError)>),
}

/// Reads and predicts.
///
/// # Errors
/// [`Refused`]
pub fn predict(predictor: &Predictor, body: &[u8]) -> Result<Predicted, Refused> {
    let mut refused = None;
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = json.deserialize_any(Body { predictor, refused: &mut refused });
    let read = read.and_then(|predicted| json.end().map(|()| predicted));
    match (refused, read) {
        (Some(refused), _) => Err(refused),
        (None, Ok(predicted)) => Ok(predicted),
        (None, Err(error)) if error.is_data() => Err(Refused::Shape(error.to_string())),
        (None, Err(error)) => Err(Refused::Syntax(error.to_string())),
    }
}

struct Body<'a> {
    predictor: &'a Predictor,
    /// Why reading was given up, where it is not the JSON's own fault.
    refused: &'a mut Option<Refused>,
}

impl Body<'_> {
    /// Gives up.
    fn refuse<T, E: serde::de::Error>(self, refused: Refused) -> Result<T, E> {
        *self.refused = Some(refused);
        Err(E::custom("refused"))
    }
}

impl<'de> Visitor<'de> for Body<'_> {
    type Value = Predicted;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a value for each column, or a list of such objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Predicted, A::Error> {
        match RowVisitor.visit_map(map)?.predict(self.predictor) {
            Ok(prediction) => Ok(Predicted::One(Box::new(prediction))),
            Err(error) => self.refuse(Refused::Columns(vec![(None, error)])),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Predicted, A::Error> {
        let (mut predictions, mut wrong) = (Vec::new(), Vec::new());
        let mut index = 0;
        while let Some(row) = rows.next_element_seed(RowVisitor)? {
            if index == MOST_ROWS {
                return self.refuse(Refused::TooMany);
            }
            match row.predict(self.predictor) {
                Ok(prediction) if wrong.is_empty() => predictions.push(prediction),
                Ok(_) => {}
                Err(error) => wrong.push((Some(index), error)),
            }
            index += 1;
            if wrong.len() == MOST_TOLD {
                break;
            }
        }
        if wrong.is_empty() { Ok(Predicted::Many(predictions)) } else { self.refuse(Refused::Columns(wrong)) }
    }
}

/// One row as it was sent.
struct Row {
    values: Map<String, Value>,
    /// Names that came twice.
    duplicate: Vec<String>,
}

impl Row {
    fn predict(self, predictor: &Predictor) -> Result<Prediction, RowError> {
        let predicted = predictor.predict(&self.values);
        if self.duplicate.is_empty() {
            return predicted;
        }
        Err(RowError { duplicate: self.duplicate, ..predicted.err().unwrap_or_default() })
    }
}

struct RowVisitor;

impl<'de> DeserializeSeed<'de> for RowVisitor {
    type Value = Row;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Row, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RowVisitor {
    type Value = Row;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a value for each column")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
        let mut row = Row { values: Map::new(), duplicate: Vec::new() };
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(ValueVisitor)?;
            if row.values.len() + row.duplicate.len() == MOST_NAMES {
                return Err(A::Error::custom(format_args!("a row has more than {MOST_NAMES} names")));
            }
            if row.values.contains_key(&name) {
                row.duplicate.push(name);
            } else {
                row.values.insert(name, value);
            }
        }
        Ok(row)
    }
}

/// A single value; lists and objects, which no column takes, are read over and kept empty.
struct ValueVisitor;

impl<'de> DeserializeSeed<'de> for ValueVisitor {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Array(Vec::new()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Object(Map::new()))
    }
}
