//! Kinds of task: what the service can do, each a type that implements [`Kind`].

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::running::Running;

/// A name longer than this is surely a mistake; it goes into each task, each event and each metric.
const LONGEST_NAME: usize = 64;

/// One kind of task. It runs **at least once**: when the process dies in the middle, or loses its lease, another
/// attempt runs it again, so what it does outside should bear repeating (the task's id is a fine idempotency key).
///
/// ```
/// use graceful_server::kind::{Failure, Kind};
/// use graceful_server::running::Running;
///
/// #[derive(serde::Deserialize)]
/// struct Greeting { name: String }
///
/// struct Greet;
///
/// impl Kind for Greet {
///     const NAME: &'static str = "greet";
///     type Input = Greeting;
///     type Output = String;
///
///     async fn run(&self, input: Greeting, task: &Running) -> Result<String, Failure> {
///         Ok(format!("Hello {}, in attempt {}", input.name, task.attempt()))
///     }
/// }
/// ```
pub trait Kind: Send + Sync + 'static {
    /// What clients write as `kind`: lower-case letters, digits, `-` and `_`.
    const NAME: &'static str;
    /// What clients hand in as `input`, checked before the task is accepted.
    type Input: DeserializeOwned + Send;
    /// What clients find as `output`.
    type Output: Serialize;

    /// JSON Schema of the input, which the OpenAPI document and `GET /v1/kinds` show; `true` says nothing of it.
    fn schema(&self) -> Value {
        Value::Bool(true)
    }

    /// Checks what the type alone cannot: ranges, schemes, that two fields fit.
    ///
    /// # Errors
    /// Names the field, and says what to write instead.
    fn check(&self, input: &Self::Input) -> Result<(), InvalidInput> {
        let _ = input;
        Ok(())
    }

    /// Whether this process takes tasks of the kind off a queue that pods share. One that is not set up for it leaves them
    /// to those that are.
    fn is_on(&self) -> bool {
        true
    }

    /// One attempt. It is dropped at its next `.await` when its time is over, when its task was taken over by another
    /// pod, and a few seconds after a client cancelled it; [`Running::cancelled`] tells beforehand. A panic is a failure
    /// like any other. What blocks a thread belongs on [`tokio::task::spawn_blocking`], with a clone of `task`: until the
    /// last clone is dropped the attempt is in flight, and the next one is not begun.
    fn run(
        &self,
        input: Self::Input,
        task: &Running,
    ) -> impl Future<Output = Result<Self::Output, Failure>> + Send;
}

/// Why an attempt failed, and what is to happen next. Any error converts into one that is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Why, for people to read.
    pub error: String,
    /// Whether and when the task is tried again.
    pub next: Next,
}

/// What happens after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another attempt, later and later, until the task has none left.
    BackOff,
    /// Another attempt after so long, if the task has one left.
    After(Duration),
    /// None: trying again would not help.
    GiveUp,
}

impl Failure {
    /// Worth another attempt, after the usual pause.
    pub fn retry(error: impl Display) -> Self {
        Self { error: error.to_string(), next: Next::BackOff }
    }

    /// Worth another attempt, at a time of one's own: an answer's `Retry-After`, say.
    pub fn retry_after(pause: Duration, error: impl Display) -> Self {
        Self { error: error.to_string(), next: Next::After(pause) }
    }

    /// Not worth another attempt: the task is dead.
    pub fn fatal(error: impl Display) -> Self {
        Self { error: error.to_string(), next: Next::GiveUp }
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::retry(text)
    }
}

/// An input that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {detail}")]
pub struct InvalidInput {
    /// Where, as a path: `input.seconds`.
    pub field: String,
    /// What is wrong, and what to write instead.
    pub detail: String,
    /// Whether it could be done and may not.
    pub forbidden: bool,
}

impl InvalidInput {
    /// For [`Kind::check`]: `field` is the input's own, `seconds`.
    #[must_use]
    pub fn new(field: &str, detail: impl Into<String>) -> Self {
        Self { field: format!("input.{field}"), detail: detail.into(), forbidden: false }
    }

    /// For what could be done, and this server is not allowed to. The answer is 403 rather than 400.
    #[must_use]
    pub fn forbidden(field: &str, detail: impl Into<String>) -> Self {
        Self { forbidden: true, ..Self::new(field, detail) }
    }
}

/// A submission that can't be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unrunnable {
    /// There is no such kind.
    #[error("there is no kind `{kind}`; write one of {known}")]
    Kind {
        /// What was asked for.
        kind: String,
        /// The names of the kinds that there are.
        known: String,
    },
    /// The input is not what the kind takes.
    #[error(transparent)]
    Input(#[from] InvalidInput),
}

/// All kinds that this service can run.
#[derive(Clone, Default)]
pub struct Kinds(BTreeMap<&'static str, Arc<dyn Erased>>);

impl std::fmt::Debug for Kinds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Kinds {
    /// Adds a kind.
    ///
    /// # Errors
    /// When the name can't be used, or is used already.
    pub fn add<K: Kind>(&mut self, kind: K) -> Result<(), String> {
        let name = K::NAME;
        let usable = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(usable) {
            return Err(format!(
                "`{name}` can't name a kind; use 1 to {LONGEST_NAME} lower-case letters, digits, - and _"
            ));
        }
        match self.0.insert(name, Arc::new(kind)) {
            None => Ok(()),
            Some(_) => Err(format!("two kinds are called `{name}`; give one of them another NAME")),
        }
    }

    /// Their names, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.keys().map(|name| (*name).to_owned()).collect()
    }

    /// The names of those that this process takes off a shared queue, sorted.
    #[must_use]
    pub fn names_on(&self) -> Vec<String> {
        self.0.iter().filter(|(_, kind)| kind.is_on()).map(|(name, _)| (*name).to_owned()).collect()
    }

    /// Each kind's name, sorted, and the JSON Schema of its input.
    pub fn schemas(&self) -> impl Iterator<Item = (&'static str, Value)> {
        self.0.iter().map(|(name, kind)| (*name, kind.schema()))
    }

    /// Whether a task of this kind with this input (JSON text) can be run.
    ///
    /// # Errors
    /// Names the field, and says what to write instead.
    pub fn check(&self, kind: &str, input: &str) -> Result<(), Unrunnable> {
        match self.0.get(kind) {
            Some(found) => Ok(found.check(input)?),
            None => Err(Unrunnable::Kind { kind: kind.to_owned(), known: self.names().join(", ") }),
        }
    }

    pub(crate) fn find(&self, kind: &str) -> Option<Arc<dyn Erased>> {
        self.0.get(kind).cloned()
    }
}

/// A [`Kind`] whose types are forgotten: JSON text in, JSON text out.
pub(crate) trait Erased: Send + Sync {
    fn schema(&self) -> Value;
    fn is_on(&self) -> bool;
    fn check(&self, input: &str) -> Result<(), InvalidInput>;
    fn run(self: Arc<Self>, input: String, task: Running) -> BoxFuture<'static, Result<String, Failure>>;
}

impl<K: Kind> Erased for K {
    fn schema(&self) -> Value {
        Kind::schema(self)
    }

    fn is_on(&self) -> bool {
        Kind::is_on(self)
    }

    fn check(&self, input: &str) -> Result<(), InvalidInput> {
        Kind::check(self, &parse::<K>(input)?)
    }

    fn run(self: Arc<Self>, input: String, task: Running) -> BoxFuture<'static, Result<String, Failure>> {
        async move {
            // It was checked when it came; a newer version of the kind may see it otherwise.
            let parsed = parse::<K>(&input).map_err(Failure::fatal)?;
            // It may be long, and the attempt as well.
            drop(input);
            let output = Kind::run(&*self, parsed, &task).await?;
            serde_json::to_string(&output)
                .map_err(|error| Failure::fatal(format!("the output is not JSON: {error}")))
        }
        .boxed()
    }
}

fn parse<K: Kind>(input: &str) -> Result<K::Input, InvalidInput> {
    let mut json = serde_json::Deserializer::from_str(input);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { "input".to_owned() } else { format!("input.{path}") };
        // Line and column are those of a text that the client never saw.
        let said = error.into_inner().to_string();
        let detail = said.rsplit_once(" at line ").map_or(said.as_str(), |(what, _)| what).to_owned();
        InvalidInput { field, detail, forbidden: false }
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fetch {
        url: String,
        #[serde(default)]
        headers: BTreeMap<String, String>,
    }

    struct FetchKind;

    impl Kind for FetchKind {
        const NAME: &'static str = "fetch";
        type Input = Fetch;
        type Output = usize;

        fn check(&self, input: &Fetch) -> Result<(), InvalidInput> {
            if input.url.starts_with("http") {
                return Ok(());
            }
            Err(InvalidInput::new("url", "is not http; write http://host/path"))
        }

        async fn run(&self, input: Fetch, _: &Running) -> Result<usize, Failure> {
            Ok(input.url.len() + input.headers.len())
        }
    }

    struct Named<const N: usize>;

    impl<const N: usize> Kind for Named<N> {
        const NAME: &'static str = ["", "Upper", "fetch"][N];
        type Input = ();
        type Output = ();

        async fn run(&self, (): (), _: &Running) -> Result<(), Failure> {
            Ok(())
        }
    }

    fn kinds() -> Kinds {
        let mut kinds = Kinds::default();
        kinds.add(FetchKind).unwrap();
        kinds
    }

    #[test]
    fn a_bad_input_is_named_by_its_field_with_what_was_expected() {
        let kinds = kinds();
        assert_eq!(kinds.check("fetch", r#"{"url": "http://x"}"#), Ok(()));
        for (input, field, said) in [
            ("[]", "input", "expected struct Fetch"),
            ("{}", "input", "missing field `url`"),
            (r#"{"url": 1}"#, "input.url", "invalid type: integer `1`, expected a string"),
            (r#"{"url": "http://x", "headers": {"a": 1}}"#, "input.headers.a", "expected a string"),
            (
                r#"{"url": "http://x", "hedaers": {}}"#,
                "input.hedaers",
                "unknown field `hedaers`, expected `url` or",
            ),
            (r#"{"url": "ftp://x"}"#, "input.url", "write http://host/path"),
        ] {
            match kinds.check("fetch", input) {
                Err(Unrunnable::Input(error)) => {
                    assert_eq!(error.field, field, "{input}: {error}");
                    assert!(
                        error.detail.contains(said) && !error.detail.contains("line"),
                        "{input}: {error}"
                    );
                }
                other => panic!("{input}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_unknown_kind_is_told_the_known_ones() {
        let said = kinds().check("fecth", "{}").unwrap_err().to_string();
        assert_eq!(said, "there is no kind `fecth`; write one of fetch");
    }

    #[test]
    fn a_name_is_checked_and_used_once() {
        let mut kinds = kinds();
        assert!(kinds.add(Named::<0>).unwrap_err().contains("can't name a kind"));
        assert!(kinds.add(Named::<1>).unwrap_err().contains("can't name a kind"));
        assert!(kinds.add(Named::<2>).unwrap_err().contains("two kinds are called `fetch`"));
    }

    #[test]
    fn any_error_is_a_failure_that_is_tried_again_with_all_its_causes() {
        let failure = Failure::from("x".parse::<u8>().unwrap_err());
        assert_eq!(failure, Failure::retry("invalid digit found in string"));
        assert_eq!(Failure::fatal("no").next, Next::GiveUp);
    }
}
