//! What can go wrong between us and the API server. "Not yet" is not an error, and neither is a conflict: both mean "look again".

use std::future::Future;
use std::time::Duration;

use graceful_plan::BackoffCause;
use kube::core::Status;

/// A call that did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server answered with a failure.
    #[error("cannot {what}: {} ({} {})", status.message, status.code, status.reason)]
    Answered {
        /// What was tried, as in "cannot …".
        what: &'static str,
        /// Its answer.
        status: Box<Status>,
    },
    /// The call did not come through.
    #[error("cannot {what}")]
    Transport {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
    /// The write was done, and admission made something else of it.
    #[error("cannot {what}: {how}")]
    Altered {
        /// What was tried, as in "cannot …".
        what: &'static str,
        /// What came of it, and what was wanted.
        how: String,
    },
    /// No answer in time.
    #[error("cannot {what}: no answer within {} s", CALL_DEADLINE.as_secs())]
    Timeout {
        /// What was tried.
        what: &'static str,
    },
    /// The request was not sent.
    #[error("did not {what}: {NotLeading}")]
    NotLeading {
        /// What was not done.
        what: &'static str,
    },
}

/// Why a plan or one of its calls failed. Its variants in snake_case are label values of metrics (`docs/operator-metrics.md` lists them): alerts depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[cfg_attr(test, derive(strum::VariantArray))]
#[strum(serialize_all = "snake_case")]
pub(crate) enum FailureClass {
    /// No answer in time.
    Timeout,
    /// Admission, a quota, missing rights, or an object that cannot be.
    Refused,
    /// Not sent: another operator leads, or may.
    NotLeading,
    /// The call did not come through.
    Transport,
    /// 404.
    NotFound,
    /// 409.
    Conflict,
    /// 429.
    Throttled,
    /// 5xx.
    Server,
    /// The plan panicked. No [`Error`] has this class.
    Panic,
}

/// The answer to a request that would change something, from a client that does not lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this operator does not lead")]
pub(crate) struct NotLeading;

/// An API server that is alive answers in milliseconds; one that has not after so long is asked again later. kube itself waits for ever.
///
/// Shorter than what lies between the end of a leader's term and the next one's begin (ADR 14). (Tests do not wait as long.)
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 7 });

/// How long the API server may take over a write, webhooks included. It then gives up, and says itself which webhook did not answer: before we
/// would, and know less.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(6);

/// One call with a deadline.
pub(crate) async fn call<T>(
    what: &'static str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, Error> {
    let answered = tokio::time::timeout(CALL_DEADLINE, request).await;
    crate::pulse::moved();
    match answered {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(kube::Error::Api(status))) => Err(Error::Answered { what, status }),
        Ok(Err(kube::Error::Service(why))) if why.is::<NotLeading>() => Err(Error::NotLeading { what }),
        Ok(Err(source)) => Err(Error::Transport { what, source: Box::new(source) }),
        Err(_) => Err(Error::Timeout { what }),
    }
}

impl Error {
    /// The API server's own word, if it gave one.
    pub(crate) fn status(&self) -> Option<&Status> {
        match self {
            Self::Answered { status, .. } => Some(status),
            Self::Transport { .. }
            | Self::Timeout { .. }
            | Self::Altered { .. }
            | Self::NotLeading { .. } => None,
        }
    }

    pub(crate) fn not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// 409: a precondition or a name; what we saw is no longer so.
    pub(crate) fn conflict(&self) -> bool {
        self.code() == Some(409) && !self.admission_says_no()
    }

    /// A webhook or a policy chooses the code of its denial, 409 and 401 among them; the words around its own are the API server's.
    fn admission_says_no(&self) -> bool {
        let says_no =
            |s: &Status| s.message.contains("denied the request") || s.message.contains("denied request");
        self.status().is_some_and(says_no)
    }

    /// 403 because the namespace goes: nothing can be made there, and nothing needs to be.
    pub(crate) fn namespace_terminating(&self) -> bool {
        let causes = self.status().and_then(|s| s.details.as_ref()).map(|d| d.causes.as_slice());
        self.code() == Some(403)
            && causes.unwrap_or_default().iter().any(|c| c.reason == "NamespaceTerminating")
    }

    /// A denial, in Kubernetes' own words: by a policy (422 by default), a webhook, a quota, missing rights or the object itself. Asked again
    /// unchanged it will mostly be denied again. A webhook that cannot be reached denies as well (it says so with a 500). A conflict is none, and
    /// neither is a time-out.
    pub(crate) fn denial(&self) -> Option<String> {
        if let Self::Altered { how, .. } = self {
            return Some(how.clone());
        }
        let status = self.status()?;
        let webhook_is_down = status.code == 500 && status.message.contains("webhook");
        (webhook_is_down || self.admission_says_no() || matches!(status.code, 400 | 403 | 405 | 413 | 422))
            .then(|| status.message.clone())
    }

    /// What a write met that stops only what depends on it: a denial, or no answer in time (a webhook that hangs, mostly: it is asked for this object and
    /// not for others). None for what is the whole plan's.
    pub(crate) fn backoff(&self) -> Option<(BackoffCause, String)> {
        if let Some(why) = self.denial() {
            return Some((BackoffCause::Refused, why));
        }
        let late = matches!(self, Self::Timeout { .. }) || self.code() == Some(504);
        let own_words = self.status().map(|status| format!(": {}", status.message)).unwrap_or_default();
        late.then(|| {
            let seconds = CALL_DEADLINE.as_secs();
            (
                BackoffCause::TooSlow,
                format!("no answer within {seconds} s, from an admission webhook or the API server itself{own_words}"),
            )
        })
    }

    /// The API server itself is slow, overloaded or away: no other call would fare better now.
    pub(crate) fn of_the_server(&self) -> bool {
        match self {
            Self::Answered { status, .. } => status.code == 429 || status.code >= 500,
            Self::Transport { .. } | Self::Timeout { .. } => true,
            Self::Altered { .. } | Self::NotLeading { .. } => false,
        }
    }

    /// What was asked for was not done: it was not sent, the API server has refused it, or an admission webhook has failed. Any other error of a server (etcd that
    /// was lost, a load balancer's 502) may come after the deed.
    pub(crate) fn not_done(&self) -> bool {
        let of_admission = |status: &Status| status.code == 500 && status.reason == "InternalError";
        matches!(self, Self::NotLeading { .. })
            || self.status().is_some_and(|status| status.code < 500 || of_admission(status))
    }

    fn code(&self) -> Option<u16> {
        self.status().map(|s| s.code)
    }

    /// What metrics count it as.
    pub(crate) fn class(&self) -> FailureClass {
        match (self, self.code()) {
            (Self::Timeout { .. }, _) => FailureClass::Timeout,
            (Self::Altered { .. }, _) => FailureClass::Refused,
            (Self::NotLeading { .. }, _) => FailureClass::NotLeading,
            (Self::Transport { .. } | Self::Answered { .. }, None) => FailureClass::Transport,
            (_, Some(404)) => FailureClass::NotFound,
            (_, Some(409)) => FailureClass::Conflict,
            (_, Some(429)) => FailureClass::Throttled,
            (_, Some(400..500)) => FailureClass::Refused,
            (_, Some(_)) => FailureClass::Server,
        }
    }
}

/// An error with all that caused it, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some errors repeat their cause in their own words.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_server_may_come_after_the_deed() {
        let not_done = |code: u16, reason: &str| {
            let status = Status { code, reason: reason.to_owned(), ..Status::default() };
            Error::Answered { what: "delete a pod", status: Box::new(status) }.not_done()
        };
        assert!(not_done(403, "Forbidden") && not_done(409, "Conflict") && not_done(429, "TooManyRequests"));
        assert!(not_done(500, "InternalError"), "a webhook that fails is asked first");
        assert!(!not_done(500, ""), "etcd was lost");
        assert!(!not_done(502, "Failed to parse error data") && !not_done(503, "ServiceUnavailable"));
        assert!(!not_done(504, "Timeout"));
        assert!(Error::NotLeading { what: "delete a pod" }.not_done(), "it was not sent");
        assert!(!Error::Timeout { what: "delete a pod" }.not_done());
    }
}
