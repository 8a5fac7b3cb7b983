//! Parts of a payload that may be of any size, read in a memory that is not.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// One line of text: cut after so many bytes, control characters become spaces.
pub(super) fn line(text: &str, max_bytes: usize) -> String {
    let cut = &text[..text.floor_char_boundary(max_bytes)];
    cut.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Lines of text: cut after so many bytes, control characters other than line ends and tabs become spaces.
pub(super) fn lines(text: &str, max_bytes: usize) -> String {
    let cut = &text[..text.floor_char_boundary(max_bytes)];
    cut.chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\r' | '\t') { ' ' } else { c }).collect()
}

/// The first `N` of a list; the others are passed over.
#[derive(Debug)]
pub(super) struct Few<T, const N: usize>(pub(super) Vec<T>);

impl<T, const N: usize> Default for Few<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Few<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T, const N: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for List<T, N> {
            type Value = Few<T, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut few = Vec::new();
                while few.len() < N
                    && let Some(element) = list.next_element()?
                {
                    few.push(element);
                }
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Few(few))
            }
        }

        deserializer.deserialize_seq(List(PhantomData))
    }
}

/// How many elements of a list have `distinct: true`, without keeping any.
#[derive(Debug, Default)]
pub(super) struct Distinct(pub(super) u64);

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        struct Commit {
            #[serde(default)]
            distinct: bool,
        }

        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Distinct;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of commits")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Distinct, A::Error> {
                let mut count = 0;
                while let Some(commit) = list.next_element::<Commit>()? {
                    count += u64::from(commit.distinct);
                }
                Ok(Distinct(count))
            }
        }

        deserializer.deserialize_seq(List)
    }
}

/// A text, a number or a truth value, as text of at most 8 KiB.
#[derive(Debug)]
pub(super) struct Scalar(pub(super) String);

/// The longest [`Scalar`] in bytes.
const MAX_SCALAR: usize = 8 << 10;

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl Visitor<'_> for Any {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number or a truth value")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
                if text.len() > MAX_SCALAR {
                    return Err(E::custom("a value is longer than 8 KiB"));
                }
                Ok(Scalar(text.to_owned()))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

/// Names with values, at most 100; a value of `null` is left out.
#[derive(Debug, Default)]
pub(super) struct Inputs(pub(super) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Inputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;

        impl<'de> Visitor<'de> for Map {
            type Value = Inputs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("names with values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Inputs, A::Error> {
                let mut inputs = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Option<Scalar>>()? {
                    if name.len() > 200 || inputs.len() == 100 {
                        return Err(A::Error::custom(
                            "`inputs` has more than 100 names, or one of more than 200 bytes",
                        ));
                    }
                    if let Some(Scalar(value)) = value {
                        inputs.insert(name, value);
                    }
                }
                Ok(Inputs(inputs))
            }
        }

        deserializer.deserialize_map(Map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(line("a\nb\u{1b}[31m", 100), "a b [31m");
        assert_eq!(line("grün", 3), "gr");
        assert_eq!(lines("a\nb\u{1b}", 100), "a\nb ");
    }

    #[test]
    fn lists_are_counted_and_cut() {
        let few: Few<u32, 2> = serde_json::from_str("[1, 2, 3, [[4]]]").unwrap();
        assert_eq!(few.0, [1, 2]);
        let count: Distinct =
            serde_json::from_str(r#"[{"distinct": true}, {}, {"distinct": false, "id": 1}]"#).unwrap();
        assert_eq!(count.0, 1);
    }

    #[test]
    fn inputs_are_small() {
        let read = |text: &str| serde_json::from_str::<Inputs>(text).map(|inputs| inputs.0).map_err(|e| e.to_string());
        let good = read(r#"{"a": "x", "b": true, "c": 3, "d": 0.5, "e": null}"#).unwrap();
        assert_eq!(
            good.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
            ["a=x", "b=true", "c=3", "d=0.5"]
        );
        assert!(read(r#"{"a": {}}"#).is_err());
        let many: BTreeMap<String, u32> = (0..101).map(|number| (number.to_string(), number)).collect();
        assert!(read(&serde_json::to_string(&many).unwrap()).unwrap_err().contains("more than 100 names"));
        assert!(read(&format!(r#"{{"a": "{}"}}"#, "x".repeat(MAX_SCALAR + 1))).is_err());
    }
}
