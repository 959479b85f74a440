//! What is added up: a list that is never empty, has nothing twice, and is short enough to be read at a glance.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The most members. A page is searched for each of them.
pub const MAX_MEMBERS: usize = 16;

/// One to sixteen different members. A sum over none would be zero, and so idle: there is no way to make one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<T>", into = "Vec<T>", bound(serialize = "T: Clone + Serialize"))]
#[serde(bound(deserialize = "T: PartialEq + fmt::Display + Deserialize<'de>"))]
pub struct Members<T>(Vec<T>);

impl<T> Members<T> {
    /// All of them, in the order that they were written in.
    pub fn as_slice(&self) -> &[T] {
        &self.0
    }
}

impl<T> From<Members<T>> for Vec<T> {
    fn from(members: Members<T>) -> Self {
        members.0
    }
}

impl<T: PartialEq + fmt::Display> TryFrom<Vec<T>> for Members<T> {
    type Error = String;

    fn try_from(members: Vec<T>) -> Result<Self, String> {
        if members.is_empty() {
            return Err("is empty; name one at least".to_owned());
        }
        if members.len() > MAX_MEMBERS {
            return Err(format!("has {} members; use at most {MAX_MEMBERS}", members.len()));
        }
        let twice = (1..members.len()).find(|&i| members[..i].contains(&members[i]));
        match twice {
            Some(i) => Err(format!("has \"{}\" twice; remove one of the two", members[i])),
            None => Ok(Self(members)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P7: a sum over nothing is zero.
    #[test]
    fn a_sum_has_one_to_sixteen_different_members() {
        let of = |n: usize| Members::try_from((0..n).map(|n| format!("/{n}")).collect::<Vec<_>>());
        assert!(of(0).unwrap_err().starts_with("is empty"));
        assert_eq!(of(1).unwrap().as_slice(), ["/0"]);
        assert_eq!(of(16).unwrap().as_slice().len(), 16);
        assert_eq!(of(17).unwrap_err(), "has 17 members; use at most 16");
        let twice = ["/a", "/b", "/a"].map(str::to_owned).to_vec();
        assert_eq!(Members::try_from(twice).unwrap_err(), "has \"/a\" twice; remove one of the two");
        assert!(serde_json::from_str::<Members<String>>("[]").is_err());
    }
}
