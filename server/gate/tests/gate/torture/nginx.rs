//! nginx before the same app, told to do what the gate does and no more.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::gate::PATIENCE;

pub(super) struct Nginx {
    pub(super) port: u16,
    child: std::process::Child,
    folder: PathBuf,
}

impl Nginx {
    pub(super) async fn before(app: u16) -> Self {
        let port = graceful_process::free_port(Ipv4Addr::LOCALHOST.into()).unwrap();
        let folder = std::env::temp_dir().join(format!("graceful-gate-beside-nginx-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("nginx.conf");
        std::fs::write(&file, configuration(&folder.display().to_string(), port, app)).unwrap();
        // One process: it is killed with the test.
        let child = Command::new("nginx")
            .arg("-c")
            .arg(&file)
            .arg("-p")
            .arg(&folder)
            .args(["-e", "stderr"])
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx: apt-get install nginx-light");
        let up = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, up).await.expect("nginx listens");
        Self { port, child, folder }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn configuration(folder: &str, port: u16, app: u16) -> String {
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {folder}/{kind}; "))
        .concat();
    format!(
        "daemon off; master_process off; pid {folder}/pid; error_log stderr crit;
events {{ worker_connections 100; }}
http {{
  access_log off; {paths}
  upstream app {{ server 127.0.0.1:{app}; keepalive 4; }}
  map $http_upgrade $connection_header {{ default upgrade; '' ''; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://app; proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off;
      proxy_set_header Host $http_host; proxy_next_upstream off;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_header;
    }}
  }}
}}
"
    )
}
