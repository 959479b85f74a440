//! Prints the OpenAPI document of the binary `server`: what `cargo xtask gen` writes to `server/openapi.json`.

use graceful_server::api;
use graceful_server::http::Http;
use graceful_server::kind::Kinds;
use graceful_server::sleep::Sleep;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut kinds = Kinds::default();
    kinds.add(Sleep { task_seconds: "20".parse()? })?;
    kinds.add(Http::default())?;
    println!("{:#}", api::document(&kinds));
    Ok(())
}
