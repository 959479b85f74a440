//! The fields of a body: what to write into each, and numbers within their bounds.

use crate::problem::Problem;

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
