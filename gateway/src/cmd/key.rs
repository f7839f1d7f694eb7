//! The key of the account that pays: from a file or the environment, never from the command line, which everybody
//! on the machine can read.

use std::env::{self, VarError};
use std::fs;
use std::io::IsTerminal as _;
use std::path::Path;

use livepeer_runtime::LocalKey;
use livepeer_runtime::keys::KeystoreProblem;
use zeroize::Zeroizing;

use crate::args::KeyArgs;
use crate::ui::{self, Failed};

const KEY: &str = "LIVEPEER_SIGNER_KEY";
const PASSWORD: &str = "LIVEPEER_SIGNER_PASSWORD";

/// Gets the key.
///
/// # Errors
/// If none is named, or what is named holds none.
pub(super) fn load(args: &KeyArgs, command: &str) -> Result<LocalKey, Failed> {
    if let Some(path) = &args.keystore {
        return from_keystore(path, args.password_file.as_deref(), command);
    }
    if let Some(path) = &args.key_file {
        let text = read(path)?;
        return raw(&text, &path.display().to_string());
    }
    match variable(KEY)? {
        Some(text) => raw(&text, KEY),
        None => Err(Failed::usage(
            format_args!("no key is named: give --keystore FILE or --key-file FILE, or set {KEY}"),
            command,
        )),
    }
}

fn raw(text: &str, place: &str) -> Result<LocalKey, Failed> {
    const REMEDY: &str = "Put 64 hexadecimal digits there, and nothing else";
    if text.trim().is_empty() {
        return Err(Failed::new(format_args!("{place} is empty"), REMEDY));
    }
    LocalKey::from_hex(text).map_err(|_| {
        Failed::new(
            format_args!("{place} holds no secret key of secp256k1"),
            REMEDY,
        )
    })
}

fn from_keystore(
    path: &Path,
    password_file: Option<&Path>,
    command: &str,
) -> Result<LocalKey, Failed> {
    let name = path.display();
    warn_if_shared(path);
    let password = password(path, password_file, command)?;
    LocalKey::from_keystore(path, &password).map_err(|problem| match problem {
        KeystoreProblem::Io(error) => Failed::file("cannot read", &name.to_string(), &error),
        KeystoreProblem::WrongPassword => Failed::new(
            format_args!("the password of {name} is wrong"),
            format_args!("Give the right one with --password-file or in {PASSWORD}"),
        ),
        problem => Failed::new(
            format_args!("{name} is no keystore that can be used: {problem}"),
            "Name a JSON keystore of version 3, as geth writes it",
        ),
    })
}

fn password(
    keystore: &Path,
    file: Option<&Path>,
    command: &str,
) -> Result<Zeroizing<String>, Failed> {
    if let Some(path) = file {
        let text = read(path)?;
        let line = text.lines().next().unwrap_or_default();
        return Ok(Zeroizing::new(line.to_owned()));
    }
    if let Some(text) = variable(PASSWORD)? {
        return Ok(text);
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failed::usage(
            format_args!(
                "the password of {} is not given: use --password-file FILE or set {PASSWORD}",
                keystore.display()
            ),
            command,
        ));
    }
    rpassword::prompt_password(format!("Password of {}: ", keystore.display()))
        .map(Zeroizing::new)
        .map_err(|error| Failed::file("cannot read the password from", "the terminal", &error))
}

/// Reads a file with a secret.
///
/// # Errors
/// If it cannot be read.
pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, Failed> {
    warn_if_shared(path);
    fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|error| Failed::file("cannot read", &path.display().to_string(), &error))
}

fn variable(name: &str) -> Result<Option<Zeroizing<String>>, Failed> {
    match env::var(name) {
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(Failed::new(
            format_args!("{name} is not text"),
            "Set it again",
        )),
    }
}

/// Says so if others than its owner can read a file with a secret.
fn warn_if_shared(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        if let Ok(data) = fs::metadata(path)
            && data.is_file()
            && data.permissions().mode() & 0o077 != 0
        {
            let path = path.display();
            ui::tell(&format!("warning: others can read {path}; chmod 600 it"));
        }
    }
}
