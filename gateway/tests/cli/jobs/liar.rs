//! Somebody between gateway and signer: passes on what it is asked, but has answers of its own for payments.

use std::io::{self, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::http::{Answer, Request, listen, read_head, respond, status};

/// No side is waited for any longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A function that answers the `n`th request for a payment, from 0 on; asks the real signer with the closure if it
/// likes.
pub(crate) type Lie = dyn Fn(usize, &dyn Fn() -> Answer) -> Answer + Send + Sync;

/// Listens on loopback; the URL to give as `--signer`.
pub(crate) fn start(signer: &str, lie: Box<Lie>) -> String {
    let signer = signer.strip_prefix("http://").expect("plain").to_owned();
    let lie: Arc<Lie> = Arc::from(lie);
    let payments = Arc::new(AtomicUsize::new(0));
    listen(move |stream| {
        let patient = stream.set_read_timeout(Some(PATIENCE));
        let Ok(request) = patient.and_then(|()| Request::read(&mut BufReader::new(&stream))) else {
            return;
        };
        let real = || pass_on(&request, &signer).unwrap_or((502, Vec::new()));
        let (status, body) = if request.head.starts_with("POST /generate-live-payment") {
            lie(payments.fetch_add(1, Ordering::SeqCst), &real)
        } else {
            real()
        };
        // The gateway may have had enough.
        let _ = respond(&stream, (status, &body));
    })
}

fn pass_on(request: &Request, signer: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(signer)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.head.as_bytes())?;
    stream.write_all(b"Connection: close\r\n\r\n")?;
    stream.write_all(&request.body)?;
    let mut reader = BufReader::new(&stream);
    let (head, length) = read_head(&mut reader)?;
    let status = status(&head).ok_or(io::ErrorKind::InvalidData)?;
    let mut body = Vec::new();
    match length {
        Some(length) => reader.take(length as u64).read_to_end(&mut body)?,
        None => reader.read_to_end(&mut body)?,
    };
    Ok((status, body))
}
