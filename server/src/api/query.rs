//! What `GET /v1/tasks` is asked, read as strictly as a body: a filter that is misspelt must not list everything.

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query};
use axum::http::Uri;
use axum::http::request::Parts;
use graceful_store::{Cursor, Filter};

use crate::api::queue_name;
use crate::client_id;
use crate::problem::Problem;

/// A screenful or two.
const LIMIT: usize = 50;
/// More than one looks through; a page of large tasks ends before, at the store's bound in bytes.
const MOST: usize = 100;

/// Which tasks, and how many.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) filter: Filter,
    /// From here on.
    pub(crate) after: Option<Cursor>,
    /// The most tasks in one page.
    pub(crate) limit: usize,
}

impl<S: Send + Sync> FromRequestParts<S> for Listing {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let pairs: Result<Query<Vec<(String, String)>>, QueryRejection> =
            Query::from_request_parts(parts, state).await;
        let Query(pairs) = pairs.map_err(|error| Problem::malformed(format!("the query: {error}")))?;
        read(pairs)
    }
}

fn read(pairs: Vec<(String, String)>) -> Result<Listing, Problem> {
    let mut listing = Listing { filter: Filter::default(), after: None, limit: LIMIT };
    let mut seen = Vec::with_capacity(pairs.len());
    for (name, value) in pairs {
        if seen.contains(&name) {
            return Err(Problem::invalid(
                name,
                "is given twice; write it once, states with commas between them",
            ));
        }
        match name.as_str() {
            "state" => {
                let states = value.split(',').map(str::parse).collect::<Result<_, _>>();
                listing.filter.states = states.map_err(|why: String| Problem::invalid("state", &why))?;
            }
            "kind" => listing.filter.kind = Some(value),
            "client_id" => {
                client_id::check(&value).map_err(|instead| Problem::invalid("client_id", instead))?;
                listing.filter.client_id = Some(value);
            }
            "queue" => {
                queue_name::check(&value).map_err(|instead| Problem::invalid("queue", &instead))?;
                listing.filter.queue = Some(value);
            }
            "cursor" => {
                let cursor = value.parse().map_err(|_| {
                    Problem::invalid("cursor", "write the `next` of the page before, or leave it out")
                });
                listing.after = Some(cursor?);
            }
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=MOST).contains(limit));
                listing.limit =
                    limit.ok_or_else(|| Problem::invalid("limit", "write a whole number from 1 to 100"))?;
            }
            _ => {
                let instead = "is no parameter; write state, kind, client_id, queue, limit or cursor";
                return Err(Problem::invalid(name, instead));
            }
        }
        seen.push(name);
    }
    Ok(listing)
}

/// Sees that nothing is asked in the query: a `?dry_run=true` that nobody reads would change what it was to count.
pub(crate) fn none(uri: &Uri) -> Result<(), Problem> {
    let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
        return Err(Problem::malformed("the query: leave it out, and write what is asked into the body"));
    };
    match pairs.into_iter().next() {
        Some((name, _)) => Err(Problem::invalid(name, "is no parameter; write it into the body")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use graceful_store::State;

    use super::*;

    fn ask(query: &str) -> Result<Listing, String> {
        let uri = format!("/v1/tasks?{query}").parse().unwrap();
        let Query(pairs) = Query::try_from_uri(&uri).unwrap();
        read(pairs).map_err(|problem| format!("{problem:?}"))
    }

    #[test]
    fn everything_has_a_default() {
        assert_eq!(ask("").unwrap(), Listing { filter: Filter::default(), after: None, limit: 50 });
    }

    #[test]
    fn states_are_separated_by_commas() {
        assert_eq!(ask("state=queued,dead").unwrap().filter.states, [State::Queued, State::Dead]);
        assert_eq!(ask("state=queued%2Cdead").unwrap().filter.states, [State::Queued, State::Dead]);
    }

    #[test]
    fn what_belongs_into_the_body_is_not_overlooked_in_the_query() {
        let read = |uri: &str| none(&uri.parse().unwrap()).map_err(|problem| format!("{problem:?}"));
        assert_eq!(read("/v1/bulk/cancel"), Ok(()));
        assert_eq!(read("/v1/bulk/cancel?"), Ok(()));
        let why = read("/v1/bulk/cancel?dry_run=true").unwrap_err();
        assert!(why.contains("dry_run: is no parameter; write it into the body"), "{why}");
    }

    #[test]
    fn what_is_wrong_is_named_with_what_to_write() {
        for (query, said) in [
            ("state=done", "`done` is no state; write one of queued, running"),
            ("state=", "state: `` is no state"),
            ("stat=queued", "stat: is no parameter; write state, kind"),
            ("limit=0", "limit: write a whole number from 1 to 100"),
            ("limit=101", "limit: write"),
            ("limit=1&limit=2", "limit: is given twice"),
            ("cursor=x", "cursor: write the `next`"),
            ("client_id=", "client_id: write a string of 1 to 128"),
        ] {
            let why = ask(query).unwrap_err();
            assert!(why.contains(said), "{query}: {why}");
        }
    }
}
