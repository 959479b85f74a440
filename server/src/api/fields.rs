//! The fields of a body: that they are named, what to write into each, and numbers within their bounds.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::problem::Problem;

/// A JSON object. A struct as serde reads it may be a list as well, with its fields in the order in which they are declared: what
/// was meant for something else would be obeyed.
#[derive(Debug, Default)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Members(PhantomData))
    }
}

struct Members<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
    type Value = Object<T>;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members)).map(Object)
    }
}

/// Each field of a body, and what to write into it.
pub(crate) struct Fields(pub(crate) &'static [(&'static str, &'static str)]);

impl Fields {
    /// The refusal of a value, with what to write instead.
    pub(crate) fn wanted(&self, field: &'static str) -> Problem {
        Problem::invalid(field, self.instead(field).unwrap_or("leave it out"))
    }

    /// What to write into a field, if there is one of this name.
    pub(crate) fn instead(&self, field: &str) -> Option<&'static str> {
        self.0.iter().find(|(name, _)| *name == field).map(|(_, instead)| *instead)
    }

    /// All of their names, for a person.
    pub(crate) fn names(&self) -> String {
        self.0.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn within(
        &self,
        field: &'static str,
        value: Option<f64>,
        least: f64,
        most: f64,
    ) -> Result<Option<f64>, Problem> {
        match value {
            Some(value) if !(least..=most).contains(&value) => Err(self.wanted(field)),
            value => Ok(value),
        }
    }

    /// JSON has one kind of number: 3.0 is as whole as 3.
    pub(crate) fn whole(
        &self,
        field: &'static str,
        value: Option<f64>,
        least: f64,
        most: f64,
    ) -> Result<Option<f64>, Problem> {
        match self.within(field, value, least, most)? {
            Some(value) if value.fract() != 0.0 => Err(self.wanted(field)),
            value => Ok(value),
        }
    }
}
