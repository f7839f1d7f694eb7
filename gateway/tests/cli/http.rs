//! Plain HTTP by hand: for calls that no client would make, and for servers that misbehave.

use std::io::{self, BufRead, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// An answer: its status and body.
pub(crate) type Answer = (u16, Vec<u8>);

/// Makes a request on a connection of its own; returns status and body.
pub(crate) fn call(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (u16, String) {
    let answer = fetch(address, method, path, headers, body);
    let body = String::from_utf8(answer.body).expect("text");
    (answer.status, body)
}

/// An answer as it came over the wire: chunks are not joined.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Whole {
    /// The answer in these bytes, if they begin with a status.
    fn read(answer: &[u8]) -> Option<Self> {
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let (head, body) = answer.split_at(end.map_or(answer.len(), |end| end + 4));
        let head = String::from_utf8_lossy(head).into_owned();
        Some(Self {
            status: status(&head)?,
            head,
            body: body.to_vec(),
        })
    }

    /// A field of the head.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut named = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value)
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

/// Makes a request on a connection of its own; returns all of the answer.
pub(crate) fn fetch(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Whole {
    say(address, &request(address, method, path, headers, body))
}

/// Does as [`fetch`] does, where the server may be gone at any time: nothing unless the answer is there.
pub(crate) fn try_fetch(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<Whole> {
    let mut stream = TcpStream::connect(address).ok()?;
    let request = request(address, method, path, headers, body);
    stream.write_all(&request).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Whole::read(&answer)
}

fn request(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    [head.as_bytes(), body].concat()
}

/// Sends these bytes on a connection of their own, and reads to its end.
pub(crate) fn say(address: &str, bytes: &[u8]) -> Whole {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    // An answer may come before all of the request is taken.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    Whole::read(&answer).unwrap_or_else(|| panic!("no status in {text:?}"))
}

/// The status in the first line of an answer.
pub(crate) fn status(head: &str) -> Option<u16> {
    head.split(' ').nth(1)?.parse().ok()
}

/// Listens on loopback for as long as the tests run, and serves every connection in a thread of its own: its URL.
pub(crate) fn listen(serve: impl Fn(TcpStream) + Send + Clone + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    url
}

/// A request that came.
pub(crate) struct Request {
    /// Its lines up to the empty one, without those about the connection.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn read(reader: &mut impl BufRead) -> io::Result<Self> {
        let (head, length) = read_head(reader)?;
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
        Ok(Self { head, body })
    }
}

/// The lines up to the empty one, without those about the connection, and the length of what follows.
pub(crate) fn read_head(reader: &mut impl BufRead) -> io::Result<(String, Option<usize>)> {
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

/// Answers, and says that nothing more comes on this connection.
pub(crate) fn respond(mut stream: &TcpStream, (status, body): (u16, &[u8])) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}
