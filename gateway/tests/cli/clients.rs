//! Clients of others, unchanged, against `serve` on a development network.
//!
//! Clients are installed by name from the package registries, which takes minutes, so only where `LIVEPEER_CLIENTS=1` asks
//! for it; one that cannot be installed is told. With `LIVEPEER_CLIENTS=required` it fails the test. The Python client of
//! orchestrators holds a session for `LIVEPEER_CLIENTS_MINUTES` where that is set: the parameters of tickets last for eight.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::files::Folder;
use crate::process::gateway;
use crate::server::{Devnet, Server};

/// Models that an app and a container serve.
const BACKENDS: &str = r#"
[[models.backend]]
name = "app-chat"
surfaces = ["chat"]
app = { name = "devnet/echo" }
[[models.backend]]
name = "boxed"
surfaces = ["chat", "embeddings"]
byoc = { capability = "echo" }
"#;
/// The packages of Python, in the versions that the scripts were written for.
const PYTHON: [&str; 3] = [
    "livepeer-ai==0.10.0",
    "openai==3.57.0",
    "schemathesis==4.32.0",
];
/// The packages of Node, likewise.
const NODE: [&str; 2] = ["openai@6.49.0", "@livepeer/ai@0.6.2"];
/// The Python client of orchestrators; it names an older Python as too old for it, and runs there all the same.
pub(crate) const GATEWAY: &str = "livepeer-gateway==1.0.0";
/// The packages that it stands on.
const UNDER_IT: [&str; 4] = ["aiohttp", "av", "grpcio", "protobuf"];
/// How many examples schemathesis makes for each operation.
const EXAMPLES: &str = "25";

#[test]
fn clients_of_others_are_served() {
    let asked = std::env::var("LIVEPEER_CLIENTS").unwrap_or_default();
    if asked.is_empty() {
        return tell("not run: LIVEPEER_CLIENTS=1 installs and runs them");
    }
    let network = Devnet::start(2, &[]);
    let folder = Folder::new("clients");
    let backends = folder.private("gateway.toml", BACKENDS);
    let front = Server::start(
        gateway()
            .args(["serve", "--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0"])
            .args(["--config", &backends])
            .env("LIVEPEER_APPS_ALLOW", "devnet/*")
            .args(["--signer", &network.signer])
            .args(["--orchestrator", &network.orchestrators.join(",")]),
        |line| line.starts_with("ops "),
    );
    let url = front.introduction.split_whitespace().nth(1);
    let url = url.unwrap_or_else(|| panic!("no address in {}", front.introduction));
    let (mut absent, mut failed) = (Vec::new(), Vec::new());
    let mut judge = |name: &str, client: Option<Command>| match client {
        None => absent.push(name.to_owned()),
        Some(mut command) => match output(&mut command) {
            Ok(said) => tell(said.lines().last().unwrap_or(name)),
            Err(said) => failed.push(format!("{name}:\n{said}")),
        },
    };
    let python = python("clients-python", &PYTHON);
    let script = |tool: &Path, name: &str| {
        let mut command = Command::new(tool);
        command.arg(scripts().join(name)).arg(url);
        command
    };
    for name in ["livepeer_ai_sdk.py", "openai_sdk.py"] {
        let tool = python.as_ref().map(|bin| bin.join("python"));
        judge(name, tool.map(|tool| script(&tool, name)));
    }
    let client = python_client();
    for more in [&["--offchain"][..], &[]] {
        let secret = ["--register-secret", "word"];
        let network = Devnet::at(&home(), 2, &[&secret, more].concat());
        let signer = if more.is_empty() {
            &*network.signer
        } else {
            "offchain"
        };
        judge(
            "gateway_sdk.py",
            client.as_ref().map(|tool| {
                let mut command = Command::new(tool);
                command.arg(scripts().join("gateway_sdk.py"));
                command
                    .arg(network.orchestrators.join(","))
                    .args([signer, "word"])
                    .args(std::env::var("LIVEPEER_CLIENTS_MINUTES"));
                command
            }),
        );
    }
    let node = node("clients-node", &NODE);
    for name in ["livepeer_ai_sdk.mjs", "openai_sdk.mjs"] {
        judge(
            name,
            node.as_ref().map(|folder| {
                let mut command = Command::new("node");
                command.arg(folder.join(name)).arg(url);
                command
            }),
        );
    }
    judge(
        "schemathesis",
        python.map(|bin| {
            let mut command = Command::new(bin.join("schemathesis"));
            let description = format!("{url}/openapi.json");
            let checks = scripts().join("schemathesis.toml");
            command.arg("--config-file").arg(checks);
            command.args(["run", &description, "--url", url]);
            command.args(["--max-examples", EXAMPLES, "--seed", "1", "--no-color"]);
            // Where it may write down what it found.
            command.current_dir(place("clients-python"));
            command
        }),
    );
    for name in &absent {
        tell(&format!("{name} is absent: it could not be installed"));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(asked != "required" || absent.is_empty(), "{absent:?}");
}

/// Where an orchestrator listens at the port at which the Python client asks for quotes, beside others of this machine.
fn home() -> String {
    match cfg!(target_os = "linux") {
        true => format!("127.0.0.{}:8935", 2 + std::process::id() % 250),
        false => "127.0.0.1:0".to_owned(),
    }
}

/// Says something that is seen although the test passes.
pub(crate) fn tell(what: &str) {
    let _ = writeln!(std::io::stderr(), "clients of others: {what}");
}

/// The folder of the scripts that drive clients.
pub(crate) fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// A folder for what is installed; later runs find it there.
fn place(name: &str) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&place).expect("a folder in the target folder");
    place
}

/// The folder of the programs of an environment with packages of Python, or nothing where they cannot be had.
pub(crate) fn python(name: &str, packages: &[&str]) -> Option<PathBuf> {
    let place = place(name);
    let bin = place.join("bin");
    if !bin.join("pip").exists() {
        install(Command::new("python3").args(["-m", "venv"]).arg(&place))?;
    }
    install(
        Command::new(bin.join("pip"))
            .args(["install", "--quiet"])
            .args(packages),
    )?;
    Some(bin)
}

/// A Python that has the client of orchestrators, or nothing where it cannot be had.
fn python_client() -> Option<PathBuf> {
    let built = [&["--only-binary=:all:"][..], &UNDER_IT].concat();
    let bin = python("clients-gateway", &built)?;
    let mut pip = Command::new(bin.join("pip"));
    pip.args([
        "install",
        "--quiet",
        "--no-deps",
        "--ignore-requires-python",
    ]);
    install(pip.arg(GATEWAY))?;
    Some(bin.join("python"))
}

/// A folder with packages of Node and the scripts that use them, or nothing where they cannot be had.
pub(crate) fn node(name: &str, packages: &[&str]) -> Option<PathBuf> {
    let place = place(name);
    for file in std::fs::read_dir(scripts()).expect("the scripts are there") {
        let file = file.expect("a file").path();
        if file.extension().is_some_and(|ending| ending == "mjs") {
            let to = place.join(file.file_name().expect("a name"));
            std::fs::copy(&file, to).expect("a copy");
        }
    }
    let quiet = ["install", "--no-audit", "--no-fund", "--silent"];
    install(
        Command::new("npm")
            .args(quiet)
            .args(packages)
            .current_dir(&place),
    )?;
    Some(place)
}

pub(crate) fn install(command: &mut Command) -> Option<()> {
    match output(command) {
        Ok(_) => Some(()),
        Err(said) => {
            tell(&said);
            None
        }
    }
}

/// The text that a program printed.
///
/// # Errors
/// The same, if it did not end well, or the reason why it could not be run.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let ran = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let said = [ran.stdout, ran.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if ran.status.success() {
        Ok(said)
    } else {
        Err(said)
    }
}
