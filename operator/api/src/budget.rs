//! The rollout's budget in pods, with Kubernetes' rounding.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};

/// How many pods a rollout may add and miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Pods above replicas, draining ones included.
    pub surge: u32,
    /// Serving pods below replicas.
    pub unavailable: u32,
}

impl Budget {
    /// Of these settings at this size: a percentage of surge rounds up, one of unavailable rounds down, and where both
    /// come out as 0, one pod may be unavailable. 25 % and 0 at 3 replicas: surge 1, unavailable 0.
    ///
    /// The error says what is wrong with which of the two: `(field, message)`.
    pub fn resolve(
        replicas: u32,
        max_surge: &IntOrString,
        max_unavailable: &IntOrString,
    ) -> Result<Self, (&'static str, String)> {
        let surge = Amount::parse(max_surge).map_err(|e| ("maxSurge", e))?;
        let unavailable = Amount::parse(max_unavailable).map_err(|e| ("maxUnavailable", e))?;
        if surge.is_zero() && unavailable.is_zero() {
            let why =
                "both are 0, so no pod could ever be replaced; set maxSurge or maxUnavailable to 1 or more";
            return Err(("maxUnavailable", why.to_owned()));
        }
        if let Amount::Percent(percent @ 101..) = unavailable {
            return Err(("maxUnavailable", format!("{percent}% is more than all pods; use 100% or less")));
        }
        let surge = surge.of(replicas, u64::div_ceil);
        let unavailable = unavailable.of(replicas, |a, b| a / b);
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        Ok(Self { surge, unavailable })
    }
}

#[derive(Clone, Copy)]
enum Amount {
    Pods(u32),
    Percent(u32),
}

impl Amount {
    fn parse(value: &IntOrString) -> Result<Self, String> {
        match value {
            IntOrString::Int(n) => {
                u32::try_from(*n).map(Self::Pods).map_err(|_| format!("{n} is negative; use 0 or more"))
            }
            IntOrString::String(text) => text
                .strip_suffix('%')
                .filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|digits| digits.parse().ok())
                .map(Self::Percent)
                .ok_or_else(|| format!("{text:?} is neither a number nor a percentage; write 1 or \"25%\"")),
        }
    }

    fn is_zero(self) -> bool {
        matches!(self, Self::Pods(0) | Self::Percent(0))
    }

    fn of(self, replicas: u32, divide: impl FnOnce(u64, u64) -> u64) -> u32 {
        match self {
            Self::Pods(n) => n,
            Self::Percent(p) => {
                u32::try_from(divide(u64::from(replicas) * u64::from(p), 100)).unwrap_or(u32::MAX)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percent(p: &str) -> IntOrString {
        IntOrString::String(p.to_owned())
    }

    fn resolved(replicas: u32, surge: &IntOrString, unavailable: &IntOrString) -> (u32, u32) {
        let budget = Budget::resolve(replicas, surge, unavailable).unwrap();
        (budget.surge, budget.unavailable)
    }

    /// Keeps P3.
    #[test]
    fn surge_rounds_up_and_unavailable_down() {
        assert_eq!(resolved(3, &percent("25%"), &percent("25%")), (1, 0));
        assert_eq!(resolved(10, &percent("25%"), &percent("25%")), (3, 2));
        assert_eq!(resolved(4, &percent("25%"), &IntOrString::Int(0)), (1, 0));
        assert_eq!(resolved(3, &percent("150%"), &IntOrString::Int(2)), (5, 2));
    }

    /// Keeps P3.
    #[test]
    fn both_rounded_to_nothing_means_one_unavailable() {
        assert_eq!(resolved(3, &IntOrString::Int(0), &percent("10%")), (0, 1));
        assert_eq!(resolved(0, &percent("25%"), &IntOrString::Int(0)), (0, 1));
    }

    #[test]
    fn nonsense_is_refused_with_what_to_write() {
        for (surge, unavailable, field) in [
            (IntOrString::Int(0), percent("0%"), "maxUnavailable"),
            (percent("25"), IntOrString::Int(0), "maxSurge"),
            (percent("-5%"), IntOrString::Int(0), "maxSurge"),
            (IntOrString::Int(1), IntOrString::Int(-1), "maxUnavailable"),
            (IntOrString::Int(1), percent("101%"), "maxUnavailable"),
            (percent("99999999999%"), IntOrString::Int(0), "maxSurge"),
        ] {
            let error = Budget::resolve(3, &surge, &unavailable).unwrap_err();
            assert_eq!(error.0, field, "{error:?}");
        }
    }
}
