use super::*;

const PORTS: [&str; 5] = ["graceful-gate", "--listen-port", "8080", "--app-port", "8000"];

fn run(args: &[&str]) -> Result<Run, String> {
    let cli = Cli::try_parse_from([&PORTS, args].concat()).map_err(|error| error.to_string())?;
    cli.run.places().map_err(|error| error.to_string())?;
    Ok(cli.run)
}

#[test]
fn a_bad_setting_is_named_with_what_to_write_instead() {
    for (args, flag, instead) in [
        (&["--app-address", "10.0.0.1"][..], "--app-address", "write 127.0.0.1"),
        (&["--app-address", "localhost"], "--app-address", "write 127.0.0.1"),
        (&["--admin-port", "8000"], "--admin-port", "give the gate another"),
        (&["--admin-port", "8080"], "--admin-port", "write --admin-port 9808"),
        (&["--proxy-protocol", "V1"], "--proxy-protocol", "--protocol Tcp"),
        (&["--protocol", "Tcp", "--forwarded", "Both"], "--forwarded", "write --proxy-protocol"),
        (&["--in-flight-authorization", "Bearer x"], "--in-flight-authorization", "write --in-flight"),
        (&["--protocol", "Grpc"], "--protocol", "Http, Tcp"),
        (&["--open-sockets", "Close"], "--open-sockets", "Hold, Farewell"),
        (&["--max-connections", "0"], "--max-connections", "zero"),
        (&["--in-flight", "{}"], "--in-flight", "jsonPointers"),
        (&["--in-flight", r#"{"jsonPointer": "/n"}"#], "--in-flight", "jsonPointers"),
        (&["--in-flight", r#"{"path": "/", "jsonPointers": ["n"]}"#], "--in-flight", "/n"),
        (&["--in-flight", r#"{"path": "/", "metrics": ["a b"]}"#], "--in-flight", "queue_length"),
        (
            &["--in-flight", r#"{"path": "/", "metrics": ["a"], "jsonPointers": ["/n"]}"#],
            "--in-flight",
            "one of",
        ),
        (&["--in-flight", r#"{"path": "x", "metrics": ["a"]}"#], "--in-flight", "/x"),
        (
            &["--in-flight", r#"{"path": "/", "metrics": ["a"], "timeoutSeconds": 0}"#],
            "--in-flight",
            "timeoutSeconds",
        ),
        (&["--on-drain", r#"{"path": "stop"}"#], "--on-drain", "/stop"),
        (&["--on-drain", r#"{"path": "/stop", "url": "x"}"#], "--on-drain", "url"),
    ] {
        let said = run(args).expect_err("refused");
        assert!(said.contains(flag) && said.contains(instead), "{args:?}: {said}");
    }
}

#[test]
fn a_secret_is_never_shown() {
    let said =
        run(&["--in-flight", "{}", "--in-flight-authorization", "Bearer hush\n"]).expect_err("refused");
    assert!(!said.contains("hush"), "{said}");
    let run = run(&[
        "--in-flight",
        r#"{"path": "/", "metrics": ["a"]}"#,
        "--in-flight-authorization",
        "Bearer hush",
    ]);
    assert!(!format!("{run:?}").contains("hush"), "{run:?}");
}

#[test]
fn both_ports_are_asked_for_by_name() {
    for (args, missing) in [
        (&["graceful-gate", "--app-port", "1"][..], "--listen-port"),
        (&["graceful-gate", "--listen-port", "1"], "--app-port"),
    ] {
        let said = Cli::try_parse_from(args).unwrap().run.places().unwrap_err().to_string();
        assert!(said.contains(missing), "{said}");
    }
    assert!(matches!(
        Cli::try_parse_from(["graceful-gate", "pre-stop"]).unwrap().command,
        Some(Command::PreStop(_))
    ));
}

#[test]
fn a_variable_that_nobody_reads_is_refused_by_name() {
    let said = unknown(["GRACEFUL_GATE_PROTOCOLL".to_owned()].into_iter()).unwrap_err().to_string();
    assert!(said.contains("GRACEFUL_GATE_PROTOCOLL") && said.contains("GRACEFUL_GATE_PROTOCOL,"), "{said}");
    let fine = [
        "GRACEFUL_GATE_PROTOCOL",
        "PATH",
        // A Service named graceful-gate, and one named graceful-gate-admin.
        "GRACEFUL_GATE_SERVICE_HOST",
        "GRACEFUL_GATE_SERVICE_PORT_HTTP",
        "GRACEFUL_GATE_PORT",
        "GRACEFUL_GATE_PORT_80_TCP_ADDR",
        "GRACEFUL_GATE_ADMIN_PORT_80_TCP",
    ];
    assert!(unknown(fine.into_iter().map(ToOwned::to_owned)).is_ok());
}

/// The operator writes them into pods by these names, and the gate stops at one that it does not know.
#[test]
fn each_variable_that_the_operator_writes_is_read() {
    let operator = include_str!("../../../../operator/api/src/gated.rs");
    let written: Vec<_> = operator
        .lines()
        .filter(|line| line.trim_start().starts_with("pub const"))
        .filter_map(|line| line.split('"').nth(1))
        .filter(|word| word.starts_with("GRACEFUL_"))
        .collect();
    assert!(written.len() >= 9, "only {written:?}: are they still there?");
    let command = Run::augment_args(clap::Command::new("run"));
    let read: Vec<_> = command.get_arguments().filter_map(|a| a.get_env()?.to_str()).collect();
    for name in written {
        assert!(read.contains(&name), "{name} is written by the operator, and not read");
    }
}
