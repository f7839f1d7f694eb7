//! Unix sockets that listen: a file that says who may connect, and that is gone at the end.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, thread};

/// How long a program that listens already may take to let us connect; a longer queue than that shows that it is there.
const ASK_WITHIN: Duration = Duration::from_secs(1);

/// A unix socket that listens at a path. Dropping it removes its file.
#[derive(Debug)]
pub struct LocalSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// The file of a socket, removed when this is dropped unless another one has taken its place.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// The device and the number of the file.
    identity: (u64, u64),
}

impl LocalSocket {
    /// Listens at `path`, for those whom the file's `mode` lets in. A socket file at which nobody listens any more is
    /// replaced.
    ///
    /// # Errors
    /// If somebody listens there, if the file is no socket, or if the system refuses.
    pub fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        make_way(path)?;
        // Under another name until its mode is set: whom the mode keeps out cannot connect before. The last step puts it
        // into the place of a deserted one.
        let mut young = path.as_os_str().to_owned();
        young.push(".new");
        let young = PathBuf::from(young);
        match fs::remove_file(&young) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&young)?;
        let mut file = SocketFile::of(young)?;
        listener.set_nonblocking(true)?;
        fs::set_permissions(&file.path, fs::Permissions::from_mode(mode))?;
        fs::rename(&file.path, path)?;
        file.path = path.to_owned();
        Ok(Self { listener, file })
    }

    pub(super) fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

impl SocketFile {
    fn of(path: PathBuf) -> io::Result<Self> {
        let identity = identity(&path)?;
        Ok(Self { path, identity })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // Nothing to be done if it cannot be removed: the next one to listen there replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

/// Sees to it that a path is free, or has a socket at which nobody listens.
fn make_way(path: &Path) -> io::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(file) => file.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !kind.is_socket() {
        let why = "there is a file that is not a socket";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
    }
    // Connecting blocks if the queue of whoever listens is full.
    let (tell, told) = mpsc::channel();
    let there = path.to_owned();
    thread::spawn(move || tell.send(UnixStream::connect(there).map(drop)));
    match told.recv_timeout(ASK_WITHIN) {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(Err(error)) => Err(error),
        Ok(Ok(())) | Err(_) => {
            let why = "another program listens there";
            Err(io::Error::new(io::ErrorKind::AddrInUse, why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path of its own in the system's folder for passing things.
    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("livepeer-{name}-{}.sock", std::process::id()))
    }

    #[test]
    fn a_socket_has_its_mode_and_is_gone_at_the_end() {
        let path = path("mode");
        let socket = LocalSocket::bind(&path, 0o600).expect("the path is free");
        let mode = fs::metadata(&path).expect("it is there").mode();
        assert_eq!(mode & 0o777, 0o600);
        UnixStream::connect(&path).expect("somebody listens");
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_replaces_one_at_which_nobody_listens_and_no_other_file() {
        let path = path("stale");
        drop(UnixListener::bind(&path).expect("the path is free"));
        assert!(path.exists(), "the system leaves the file of a socket");
        let first = LocalSocket::bind(&path, 0o600).expect("nobody listens");
        let error = LocalSocket::bind(&path, 0o600).expect_err("somebody listens");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        UnixStream::connect(&path).expect("the first one still listens");
        // Whoever comes next has the path: the first one leaves it alone.
        fs::remove_file(&path).expect("it is there");
        let second = LocalSocket::bind(&path, 0o600).expect("the path is free");
        drop(first);
        UnixStream::connect(&path).expect("the second one listens");
        drop(second);
        fs::write(&path, "words").expect("the folder can be written");
        let error = LocalSocket::bind(&path, 0o600).expect_err("it is no socket");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).expect("it is there"), b"words");
        fs::remove_file(&path).expect("it is there");
    }
}
