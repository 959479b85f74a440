//! From `--url` to how to connect. The password is in there: none of this is ever printed.

use std::str::FromStr;

use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

use crate::error::OpenError;

/// What sqlx understands. Others are refused here: it would log them with their values, and one may be a misspelt
/// password.
const PARAMETERS: [&str; 17] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// How each of our sessions is set, whatever the server's defaults are:
/// - a commit is on disk before it is answered;
/// - plans are not compiled: ours are small, and compiling one can take longer than a lease's slack;
/// - nothing takes longer than a caller waits, nor keeps locks for a process that is gone.
/// - each statement sees what was committed before it: the queue's statements skip what others have locked and look at rows
///   again, which under a snapshot of the transaction's begin would fail, or see tasks that another pod has taken.
const SESSION: [(&str, &str); 5] = [
    ("synchronous_commit", "on"),
    ("default_transaction_isolation", "read committed"),
    ("jit", "off"),
    ("statement_timeout", "10s"),
    ("idle_in_transaction_session_timeout", "10s"),
];

/// Reads the URL.
pub(super) fn parse(url: &str) -> Result<PgConnectOptions, OpenError> {
    let refuse = |detail: String| OpenError::Url { detail };
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(refuse("it does not begin with postgres://".to_owned()));
    }
    let parameters = url.split_once('?').map_or("", |(_, all)| all.split('#').next().unwrap_or(all));
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let name = parameter.split('=').next().unwrap_or(parameter);
        if !PARAMETERS.contains(&name) && !name.starts_with("options[") {
            // An unescaped `?` makes the password's end look like a parameter.
            let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            let which = if plain && !parameters.contains('@') { format!(" `{name}`") } else { String::new() };
            return Err(refuse(format!("the parameter{which} is unknown")));
        }
    }
    // sqlx's own words may repeat a part of it.
    let options = PgConnectOptions::from_str(url).map_err(|_| {
        refuse("it can't be read: look at port, sslmode, and signs that must be percent-encoded".to_owned())
    })?;
    let named = options.get_application_name().is_some();
    let options = if named { options } else { options.application_name("graceful") };
    Ok(options.options(SESSION).disable_statement_logging())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_cannot_be_used_is_refused_without_its_password() {
        for url in [
            "mysql://u:hunter2@h/d",
            "postgres://u:hunter2@h:port/d",
            "postgres://u:hunter2@h/d?pasword=hunter2",
            "postgres://u:hunter2@h/d?sslmode=hunter2",
            "postgres://u:pass?hunter2@h/d",
            "postgres://u:pass?hunter2&x@h/d",
            "postgres://u:hunter2@[h/d",
        ] {
            let error = parse(url).unwrap_err();
            assert!(matches!(error, OpenError::Url { .. }), "{url}: {error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        let error = parse("postgres://h/d?pasword=x").unwrap_err().to_string();
        assert!(error.contains("`pasword`"), "{error}");
    }

    #[test]
    fn a_url_may_say_all_that_is_needed_for_tls_and_a_schema() {
        let url = "postgresql://u:p@h:1/d?sslmode=verify-full&sslrootcert=/ca.pem&options[search_path]=queue";
        assert_eq!(parse(url).unwrap().get_port(), 1);
    }
}
