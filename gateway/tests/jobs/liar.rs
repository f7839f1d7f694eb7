//! Somebody between gateway and signer: passes on what it is asked, but has answers of its own for payments.

use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// No side is waited for any longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer: its status and body.
pub(crate) type Answer = (u16, Vec<u8>);

/// What becomes of the `n`th request for a payment, from 0 on; asks the real signer with the closure if it likes.
pub(crate) type Lie = dyn Fn(usize, &dyn Fn() -> Answer) -> Answer + Send + Sync;

/// Listens on loopback; the URL to give as `--signer`.
pub(crate) fn start(signer: &str, lie: Box<Lie>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let signer = signer.strip_prefix("http://").expect("plain").to_owned();
    let lie: Arc<Lie> = Arc::from(lie);
    let payments = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (signer, lie, payments) = (signer.clone(), lie.clone(), payments.clone());
            thread::spawn(move || {
                let Ok(stream) = stream else { return };
                let Ok(request) = Request::read(&stream) else {
                    return;
                };
                let real = || request.send_to(&signer).unwrap_or((502, Vec::new()));
                let (status, body) = if request.is_payment() {
                    let n = payments.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    lie(n, &real)
                } else {
                    real()
                };
                // The gateway may have had enough.
                let _ = respond(&stream, status, &body);
            });
        }
    });
    url
}

struct Request {
    head: String,
    body: Vec<u8>,
}

impl Request {
    fn read(stream: &TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut reader = BufReader::new(stream);
        let (head, length) = read_head(&mut reader)?;
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
        Ok(Self { head, body })
    }

    fn is_payment(&self) -> bool {
        self.head.starts_with("POST /generate-live-payment")
    }

    fn send_to(&self, signer: &str) -> io::Result<Answer> {
        let mut stream = TcpStream::connect(signer)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(self.head.as_bytes())?;
        stream.write_all(b"Connection: close\r\n\r\n")?;
        stream.write_all(&self.body)?;
        let mut reader = BufReader::new(&stream);
        let (head, length) = read_head(&mut reader)?;
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .ok_or(io::ErrorKind::InvalidData)?;
        let mut body = Vec::new();
        match length {
            Some(length) => reader.take(length as u64).read_to_end(&mut body)?,
            None => reader.read_to_end(&mut body)?,
        };
        Ok((status, body))
    }
}

/// The lines up to the empty one, without those about the connection, and the length of what follows.
fn read_head(reader: &mut impl io::BufRead) -> io::Result<(String, Option<usize>)> {
    let (mut head, mut length) = (String::new(), None);
    loop {
        let mut line = String::new();
        if reader.by_ref().take(64 << 10).read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line == "\r\n" {
            return Ok((head, length));
        }
        let name = line.split(':').next().unwrap_or_default();
        if name.eq_ignore_ascii_case("content-length") {
            length = line[name.len() + 1..].trim().parse().ok();
        }
        if !name.eq_ignore_ascii_case("connection") {
            head.push_str(&line);
        }
    }
}

fn respond(mut stream: &TcpStream, status: u16, body: &[u8]) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}
