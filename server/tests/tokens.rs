//! `--tokens`, on a real server: who may do what over REST, WebSocket and SSE.
#![allow(
    clippy::unwrap_used,
    reason = "tests may panic, and clippy does not see that helpers are part of them"
)]

mod child;

use child::{Folder, Server};
use serde_json::json;
use tokio::process::Command;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// A server whose file has a token for each of these scopes.
struct Guarded {
    server: Server,
    client: reqwest::Client,
    folder: Folder,
    submit: String,
    read: String,
    admin: String,
}

/// What the command prints: the token, and the line for the file.
async fn token(name: &str, scopes: &str) -> (String, String) {
    let made =
        Command::new(env!("CARGO_BIN_EXE_server")).args(["token", name, scopes]).output().await.unwrap();
    assert!(made.status.success(), "{made:?}");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
    (text(made.stderr), text(made.stdout))
}

impl Guarded {
    async fn start() -> Self {
        let folder = Folder::new();
        std::fs::create_dir_all(&folder.0).unwrap();
        let (submit, first) = token("ci", "submit").await;
        let (read, second) = token("dashboard", "read").await;
        let (admin, third) = token("on-call", "admin").await;
        let file = folder.0.join("tokens");
        std::fs::write(&file, format!("# who\n{first}\n{second}\n{third}\n")).unwrap();
        let server = Server::start(&["--tokens", file.to_str().unwrap(), "--task-seconds", "0"]).await;
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { server, client, folder, submit, read, admin }
    }

    async fn ask(&self, method: &str, path: &str, token: Option<&str>) -> reqwest::Response {
        let url = format!("http://127.0.0.1:{}{path}", self.server.public);
        let request = self.client.request(method.parse().unwrap(), url);
        let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
        request
            .header("content-type", "application/json")
            .body(if method == "POST" { "{}" } else { "" })
            .send()
            .await
            .unwrap()
    }

    async fn status(&self, method: &str, path: &str, token: Option<&str>) -> u16 {
        self.ask(method, path, token).await.status().as_u16()
    }

    /// The status of the answer to an upgrade, and the subprotocol that was chosen.
    async fn upgrade(&self, header: Option<(&'static str, String)>) -> (u16, Option<String>) {
        let url = format!("ws://127.0.0.1:{}/ws/me", self.server.public);
        let mut request = url.into_client_request().unwrap();
        if let Some((name, value)) = header {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        match connect_async(request).await {
            Ok((_, answer)) => {
                let chosen = answer.headers().get("sec-websocket-protocol");
                (answer.status().as_u16(), chosen.map(|word| word.to_str().unwrap().to_owned()))
            }
            Err(Error::Http(answer)) => (answer.status().as_u16(), None),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn each_token_does_what_its_scopes_say_and_no_more() {
    let guarded = Guarded::start().await;
    let Guarded { submit, read, admin, .. } = &guarded;
    let unknown = "gt_somebody-made-this-up".to_owned();
    let nowhere = "/v1/tasks/019e5f0c-7a3d-7c41-9d4e-1f6a5a1c2b3d";
    let cancel = format!("{nowhere}/cancel");
    let wanted = [
        ("POST", "/v1/tasks", [401, 401, 202, 403, 202]),
        ("POST", "/v1/create-task/", [401, 401, 200, 403, 200]),
        ("GET", "/v1/tasks", [401, 401, 403, 200, 200]),
        ("GET", nowhere, [401, 401, 403, 404, 404]),
        ("GET", "/v1/queue", [401, 401, 403, 200, 200]),
        ("GET", "/v1/get_queue_length/", [401, 401, 403, 200, 200]),
        ("GET", "/v1/events", [401, 401, 403, 200, 200]),
        ("POST", cancel.as_str(), [401, 401, 403, 403, 404]),
        ("GET", "/nowhere", [401, 401, 403, 404, 404]),
        ("GET", "/v1/health", [200; 5]),
        ("GET", "/readyz", [200; 5]),
        ("GET", "/", [200; 5]),
        ("GET", "/openapi.json", [200; 5]),
    ];
    for (method, path, statuses) in wanted {
        for (token, status) in
            [None, Some(&unknown), Some(submit), Some(read), Some(admin)].into_iter().zip(statuses)
        {
            let found = guarded.status(method, path, token.map(String::as_str)).await;
            assert_eq!(found, status, "{method} {path} with {token:?}");
        }
    }
    assert_eq!(guarded.server.readyz().await, 200, "the admin port has its own ways");
}

#[tokio::test]
async fn a_refusal_says_what_is_missing() {
    let guarded = Guarded::start().await;
    for (token, status, challenge) in [
        (None, 401, "Bearer realm=\"graceful\""),
        (Some("gt_no"), 401, "error=\"invalid_token\""),
        (Some(guarded.read.as_str()), 403, "scope=\"submit\""),
    ] {
        let answer = guarded.ask("POST", "/v1/tasks", token).await;
        assert_eq!(answer.status().as_u16(), status);
        let said = answer.headers()["www-authenticate"].to_str().unwrap().to_owned();
        assert!(said.contains(challenge), "{said}");
        let problem: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(problem["field"], json!("Authorization"), "{problem}");
    }
}

#[tokio::test]
async fn a_socket_is_opened_with_a_token_in_its_header_or_its_subprotocols() {
    let guarded = Guarded::start().await;
    let Guarded { submit, read, .. } = &guarded;
    assert_eq!(guarded.upgrade(None).await.0, 401);
    assert_eq!(guarded.upgrade(Some(("authorization", format!("Bearer {submit}")))).await.0, 403);
    assert_eq!(guarded.upgrade(Some(("authorization", format!("Bearer {read}")))).await, (101, None));
    // A browser can set no header; it fails unless one of its words is chosen, and the token must not be.
    let offered = Some(("sec-websocket-protocol", format!("graceful.v1, bearer.{read}")));
    assert_eq!(guarded.upgrade(offered).await, (101, Some("graceful.v1".to_owned())));
}

#[tokio::test]
async fn a_token_that_is_taken_out_of_the_file_opens_nothing_and_a_slip_changes_nothing() {
    let guarded = Guarded::start().await;
    let file = guarded.folder.0.join("tokens");
    std::fs::write(&file, "ci submit not-a-digest").unwrap();
    guarded.server.logged_once("the tokens from before still hold").await;
    assert_eq!(guarded.status("POST", "/v1/tasks", Some(&guarded.submit)).await, 202);
    let (next, line) = token("ci", "submit").await;
    std::fs::write(&file, line).unwrap();
    guarded.server.logged_once("the file of tokens has changed").await;
    assert_eq!(guarded.status("POST", "/v1/tasks", Some(&guarded.submit)).await, 401);
    assert_eq!(guarded.status("POST", "/v1/tasks", Some(&next)).await, 202);
}

#[tokio::test]
async fn a_file_that_cannot_be_used_starts_no_server() {
    let folder = Folder::new();
    std::fs::create_dir_all(&folder.0).unwrap();
    let file = folder.0.join("tokens");
    for (content, said) in
        [(None, "cannot be read"), (Some(""), "server token NAME"), (Some("ci read gt_x"), "line 1")]
    {
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        let (code, stderr) = child::run(&["--tokens", file.to_str().unwrap()]).await;
        assert!(code != 0 && stderr.contains("--tokens") && stderr.contains(said), "{stderr}");
        assert!(!stderr.contains("gt_x"), "{stderr}");
    }
}

#[tokio::test]
async fn without_tokens_it_stays_open_and_says_so_where_others_can_reach_it() {
    const SAID: &str = "whoever reaches the port";
    let local = Server::start(&[]).await;
    assert_eq!(local.post().await.status(), 200);
    assert_eq!(local.logged(SAID), Vec::<serde_json::Value>::new());
    let open = Server::start(&["--bind", "0.0.0.0"]).await;
    assert_eq!(open.post().await.status(), 200);
    assert_eq!(open.logged(SAID).len(), 1);
}
