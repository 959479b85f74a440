//! Opening: tables made once, versions side by side, and what a URL can say.

use graceful_store::{OpenError, TaskStore, postgres};

use super::conformance::fixture::{claim_one, complete, done, nothing_to_claim, settings, submit, task};
use super::{SERVER, database, open};

async fn refused(url: &str) -> OpenError {
    postgres::open(url, settings()).await.expect_err("it must not open")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_start_together_make_one_queue() {
    let database = database().await;
    let mut pods = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let url = database.0.clone();
        pods.spawn(async move { open(&url, settings()).await.stream().to_owned() });
    }
    let mut streams = pods.join_all().await;
    streams.dedup();
    assert_eq!(streams.len(), 1, "{streams:?}");
}

#[tokio::test]
async fn a_newer_schema_is_refused_only_when_it_says_so() {
    let name = SERVER.create_database().unwrap();
    let url = SERVER.url(&name);
    drop(open(&url, settings()).await);
    // In the middle of a rollout, or after one that was rolled back.
    SERVER.sql(&name, "UPDATE graceful_schema SET version = 99").unwrap();
    let store = open(&url, settings()).await;
    submit(&store, task()).await;
    SERVER.sql(&name, "UPDATE graceful_schema SET least = 98").unwrap();
    let error = refused(&url).await;
    assert!(matches!(error, OpenError::TooNew { found: 99, known: 4 }), "{error}");
}

/// The tables that a server of each version made, in whose midst the new one's servers begin.
pub(super) const VERSIONS: [&str; 3] =
    [include_str!("../versions/1.sql"), include_str!("../versions/2.sql"), include_str!("../versions/3.sql")];

#[tokio::test]
async fn the_tables_of_each_released_version_step_up_and_both_work_on_them() {
    for (version, tables) in VERSIONS.iter().enumerate() {
        let name = SERVER.create_database().unwrap();
        SERVER.sql(&name, tables).unwrap();
        let store = open(&SERVER.url(&name), settings()).await;
        let first = claim_one(&store).await;
        assert_eq!(first.kind, "sleep", "what was handed in to version {} is run", version + 1);
        complete(&store, first.lease, done()).await;
        // A server of before goes on with its statements while the rollout lasts.
        let old = tables.lines().find(|line| line.starts_with("INSERT INTO graceful_tasks")).unwrap();
        SERVER
            .sql(
                &name,
                &old.replace("00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000002"),
            )
            .unwrap();
        complete(&store, claim_one(&store).await.lease, done()).await;
        let made = "SELECT string_agg(table_name || '.' || column_name || ' ' || data_type, ',' ORDER BY table_name, column_name) \
             FROM information_schema.columns WHERE table_schema = 'public'";
        let fresh = SERVER.create_database().unwrap();
        drop(open(&SERVER.url(&fresh), settings()).await);
        assert_eq!(SERVER.sql(&name, made).unwrap(), SERVER.sql(&fresh, made).unwrap());
    }
}

#[tokio::test]
async fn queues_in_two_schemas_of_a_database_are_two() {
    let name = SERVER.create_database().unwrap();
    SERVER.sql(&name, "CREATE SCHEMA one; CREATE SCHEMA two").unwrap();
    let in_schema = |schema| format!("{}?options[search_path]={schema}", SERVER.url(&name));
    let (one, two) = (open(&in_schema("one"), settings()).await, open(&in_schema("two"), settings()).await);
    assert_ne!(one.stream(), two.stream());
    submit(&one, task()).await;
    nothing_to_claim(&two).await;
    claim_one(&one).await;
}

#[tokio::test]
async fn a_user_who_may_not_make_tables_works_on_those_that_are_there() {
    let name = SERVER.create_database().unwrap();
    let url = SERVER.url(&name);
    drop(open(&url, settings()).await);
    SERVER
        .sql(
            &name,
            &format!(
                "CREATE USER only_{name} PASSWORD 'p'; \
                 GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO only_{name}"
            ),
        )
        .unwrap();
    let url =
        url.replace("//postgres:", &format!("//only_{name}:")).replace(graceful_postgres::PASSWORD, "p");
    let store = open(&url, settings()).await;
    submit(&store, task()).await;
    complete(&store, claim_one(&store).await.lease, done()).await;
}

#[tokio::test]
async fn commits_are_synced_and_statements_see_the_latest_whatever_the_server_thinks_of_it() {
    let name = SERVER.create_database().unwrap();
    SERVER.sql(&name, &format!("ALTER DATABASE {name} SET synchronous_commit = off")).unwrap();
    SERVER
        .sql(&name, &format!("ALTER DATABASE {name} SET default_transaction_isolation = serializable"))
        .unwrap();
    assert_eq!(SERVER.sql(&name, "SHOW synchronous_commit").unwrap(), "off");
    let store = open(&SERVER.url(&name), settings()).await;
    SERVER
        .sql(
            &name,
            "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             NEW.trace = current_setting('synchronous_commit') || ', ' || current_setting('transaction_isolation'); RETURN NEW; END $$; \
             CREATE TRIGGER note BEFORE INSERT ON graceful_tasks FOR EACH ROW EXECUTE FUNCTION note()",
        )
        .unwrap();
    submit(&store, task()).await;
    assert_eq!(claim_one(&store).await.trace.as_deref(), Some("on, read committed"));
}

#[tokio::test]
async fn what_cannot_be_opened_says_why_and_never_the_password() {
    let url = SERVER.url("postgres");
    let wrong = url.replace(graceful_postgres::PASSWORD, "hunter2");
    let ascii = SERVER.create_database().unwrap() + "_ascii";
    SERVER
        .sql("postgres", &format!("CREATE DATABASE {ascii} ENCODING 'SQL_ASCII' TEMPLATE template0"))
        .unwrap();
    for (url, says) in [
        (wrong.clone(), "password authentication failed"),
        (wrong.replace(&format!(":{}/", SERVER.port()), ":1/"), "refused"),
        (wrong.clone() + "?sslmode=verify-full", "TLS"),
        (SERVER.url("nowhere"), "\"nowhere\" does not exist"),
        (SERVER.url(&ascii), "ENCODING 'UTF8'"),
        (wrong.replace("postgres://", "mysql://"), "postgres://user:password@host:5432/database"),
    ] {
        let error = refused(&url).await;
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(says), "{shown}");
        assert!(!shown.contains("hunter2") && !shown.contains(graceful_postgres::PASSWORD), "{shown}");
    }
    let store = postgres::open(&url, settings()).await.unwrap();
    assert!(store.shared() && !format!("{store:?}").contains(graceful_postgres::PASSWORD));
}
