//! A server as a child process on free ports, killed when dropped.
#![allow(dead_code, reason = "each test file uses its part of the child")]

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

#[path = "../folder/mod.rs"]
mod folder;
pub(crate) use folder::Folder;

const BINARY: &str = env!("CARGO_BIN_EXE_server");
/// Far beyond what anything here takes, on a loaded machine too.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) struct Server {
    child: Child,
    /// Dropped after the child.
    _data: Option<Folder>,
    pub(crate) public: u16,
    pub(crate) admin: u16,
    client: reqwest::Client,
    logs: Arc<Mutex<Vec<Value>>>,
    reading: JoinHandle<()>,
}

/// Runs to the end; its exit code and what it wrote to stderr.
pub(crate) async fn run(args: &[&str]) -> (i32, String) {
    let output =
        timeout(TIMEOUT, Command::new(BINARY).args(args).kill_on_drop(true).output()).await.unwrap().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What a failed test is asked for first.
impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in self.logs.lock().unwrap().iter() {
                eprintln!("{}: {line}", self.public);
            }
        }
    }
}

impl Server {
    pub(crate) async fn start(args: &[&str]) -> Self {
        Self::start_with(args, &[]).await
    }

    /// With a queue of its own.
    pub(crate) async fn start_with(args: &[&str], env: &[(&str, &str)]) -> Self {
        let data = Folder::new();
        let args = [&["--data", data.0.to_str().unwrap()], args].concat();
        let mut server = Self::launch(Path::new(BINARY), &args, env).await;
        server._data = Some(data);
        server
    }

    /// With the queue in this folder, which may hold tasks of a server that went before.
    pub(crate) async fn start_on(data: &Folder, args: &[&str]) -> Self {
        let args = [&["--data", data.0.to_str().unwrap()], args].concat();
        Self::launch(Path::new(BINARY), &args, &[]).await
    }

    /// With a queue that it shares.
    pub(crate) async fn start_sharing(url: &str, args: &[&str]) -> Self {
        let args = [&["--store", "postgres", "--url", url], args].concat();
        Self::launch(Path::new(BINARY), &args, &[]).await
    }

    /// One of the examples.
    pub(crate) async fn example(name: &str, args: &[&str]) -> Self {
        let data = Folder::new();
        let args = [&["--data", data.0.to_str().unwrap()], args].concat();
        // target/debug/examples, beside the folder of this test's own binary.
        let beside = std::env::current_exe().unwrap();
        let program = beside.parent().unwrap().parent().unwrap().join("examples").join(name);
        assert!(
            program.exists(),
            "run `cargo build -p graceful-server --examples` first, or test without --test"
        );
        let mut server = Self::launch(&program, &args, &[]).await;
        server._data = Some(data);
        server
    }

    /// Any arguments at all; returns once its ports are known and its queue is open.
    pub(crate) async fn launch(program: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        let server = Self::spawn(program, args, env).await;
        server.ready().await;
        server
    }

    /// In a shell, begun by `shell`, that runs this script and then becomes the server. The script is an argument and
    /// no file: a file that was just written cannot be run while a child of another test, forked in between, still holds
    /// it open for writing.
    pub(crate) async fn launch_in(shell: &[&str], script: &str, args: &[&str]) -> Self {
        let mut command = Command::new(shell[0]);
        command.args(&shell[1..]).arg("-c").arg(format!("{script} && exec \"$0\" \"$@\""));
        command.arg(BINARY);
        let server = Self::spawn_by(command, args, &[]).await;
        server.ready().await;
        server
    }

    pub(crate) async fn spawn(program: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::spawn_by(Command::new(program), args, env).await
    }

    async fn spawn_by(mut command: Command, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut child = command
            .args(["--port", "0", "--admin-port", "0"])
            .args(args)
            .env_remove("KUBERNETES_SERVICE_HOST")
            .envs(env.iter().copied())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let logs = Arc::new(Mutex::new(Vec::new()));
        let (found, mut ports) = watch::channel(None);
        let sink = logs.clone();
        let reading = tokio::spawn(async move {
            while let Some(line) = lines.next_line().await.unwrap() {
                let event: Value =
                    serde_json::from_str(&line).expect("each line is JSON when nobody watches");
                let port = |name: &str| event[name].as_str()?.rsplit(':').next()?.parse::<u16>().ok();
                if let (Some(public), Some(admin)) = (port("public"), port("admin")) {
                    found.send_replace(Some((public, admin)));
                }
                sink.lock().unwrap().push(event);
            }
        });
        let ports = timeout(TIMEOUT, ports.wait_for(Option::is_some)).await.unwrap().unwrap().unwrap();
        let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().unwrap();
        Self { child, _data: None, public: ports.0, admin: ports.1, client, logs, reading }
    }

    async fn ready(&self) {
        let asking = async {
            while self.readyz().await != 200 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(TIMEOUT, asking).await.expect("the queue is opened in time");
    }

    pub(crate) async fn readyz(&self) -> u16 {
        let url = format!("http://127.0.0.1:{}/readyz", self.admin);
        self.client.get(url).send().await.unwrap().status().as_u16()
    }

    pub(crate) async fn resume(&self, epoch: u64) {
        let url = format!("{}?epoch={epoch}", self.drain_url());
        assert_eq!(self.client.delete(url).send().await.unwrap().status(), 200);
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("still runs")
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().expect("still runs");
        let sent =
            std::process::Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end, and for its last log line.
    pub(crate) async fn exit(&mut self) -> i32 {
        let status = timeout(TIMEOUT, self.child.wait()).await.expect("ends in time").unwrap();
        (&mut self.reading).await.unwrap();
        status.code().expect("not killed by a signal")
    }

    /// Log lines whose message starts so.
    pub(crate) fn logged(&self, message: &str) -> Vec<Value> {
        let logs = self.logs.lock().unwrap();
        logs.iter().filter(|event| event["message"].as_str().unwrap().starts_with(message)).cloned().collect()
    }

    /// Waits for such a line; the first.
    pub(crate) async fn logged_once(&self, message: &str) -> Value {
        self.logged_until(message, |_| true).await
    }

    /// Waits for such a line that is as wanted.
    pub(crate) async fn logged_until(&self, message: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let reading = async {
            loop {
                if let Some(line) = self.logged(message).into_iter().find(&wanted) {
                    return line;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(TIMEOUT, reading).await.expect("is logged in time")
    }

    pub(crate) async fn post(&self) -> reqwest::Response {
        self.client.post(format!("http://127.0.0.1:{}/v1/create-task/", self.public)).send().await.unwrap()
    }

    /// Any request to the public port, with a JSON body if there is one; the answer's status and JSON.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let url = format!("http://127.0.0.1:{}{path}", self.public);
        let request = self.client.request(method.parse().unwrap(), url);
        let request = body.into_iter().fold(request, |request, body| request.json(body));
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Asks for a task until it is as wanted.
    pub(crate) async fn task(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/v1/tasks/{id}");
        let asking = async {
            loop {
                let (status, task) = self.call("GET", &path, None).await;
                assert_eq!(status, 200, "{task}");
                if wanted(&task) {
                    return task;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(TIMEOUT, asking).await.expect("comes to it in time")
    }

    pub(crate) async fn submit(&self) -> String {
        let answer = self.post().await;
        assert_eq!(answer.status(), 200);
        answer.json::<Value>().await.unwrap()["task_id"].as_str().unwrap().to_owned()
    }

    fn drain_url(&self) -> String {
        format!("http://127.0.0.1:{}/drain", self.admin)
    }

    pub(crate) async fn status(&self) -> Value {
        self.client.get(self.drain_url()).send().await.unwrap().json().await.unwrap()
    }

    pub(crate) async fn drain(&self, epoch: u64, linger: u64) {
        let body = json!({"epoch": epoch, "lingerSeconds": linger});
        assert_eq!(self.client.put(self.drain_url()).json(&body).send().await.unwrap().status(), 202);
    }

    /// Long-polls until the status is as wanted.
    pub(crate) async fn drained_to(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let asking = async {
            let mut known = String::new();
            loop {
                let question = self.client.get(self.drain_url()).header("prefer", "wait=1");
                let answer = question.header("if-none-match", &known).send().await.unwrap();
                known = answer.headers()["etag"].to_str().unwrap().to_owned();
                if answer.status() == 200 {
                    let status: Value = answer.json().await.unwrap();
                    if wanted(&status) {
                        return status;
                    }
                }
            }
        };
        timeout(TIMEOUT, asking).await.expect("comes to it in time")
    }

    /// A poll of the kind an operator holds while it waits; ends with the first change, or with 304. It is under way on return:
    /// two questions asked after it were answered.
    pub(crate) async fn poll(&self) -> JoinHandle<(u16, Option<Value>)> {
        let known = self.client.get(self.drain_url()).send().await.unwrap().headers()["etag"].clone();
        let question =
            self.client.get(self.drain_url()).header("prefer", "wait=15").header("if-none-match", known);
        let held = tokio::spawn(async move {
            let answer = question.send().await.expect("a held poll is answered, not cut");
            (answer.status().as_u16(), answer.json().await.ok())
        });
        self.status().await;
        self.status().await;
        held
    }

    pub(crate) async fn pre_stop(&self, args: &[&str]) -> (i32, String) {
        run(&[&["pre-stop", "--admin-port", &self.admin.to_string()], args].concat()).await
    }

    pub(crate) async fn socket(&self, client: &str) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
        connect_async(format!("ws://127.0.0.1:{}/ws/{client}", self.public)).await.unwrap().0
    }
}
