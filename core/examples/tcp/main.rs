//! A discovery over a plain `TcpStream`: the loop that the crate's documentation shows, as a program.
//!
//! `cargo run -p livepeer-core --example tcp -- http://127.0.0.1:7936/discover-orchestrators`, while
//! `livepeer-gateway devnet` runs, lists the orchestrators that its signer knows.

use livepeer_core::discovery::{Config, Discovery, Event, Origin, Source};
use livepeer_core::http::Url;

include!("drive.rs");

/// Asks the endpoint at `url` for orchestrators.
fn discover(url: Url) -> Result<Vec<Url>, String> {
    let endpoint = Source::Endpoint {
        url,
        headers: Headers::new(),
    };
    // One answer is enough: without this the discovery asks again every minute.
    let config = Config {
        refresh: None,
        ..Config::default()
    };
    let sources = vec![(Origin::Signer, endpoint.opened())];
    let mut discovery = Discovery::new(Time::from_secs(1), config, sources);
    let mut outcome = Err("the discovery ended without a word".to_owned());
    drive(&mut discovery, |event| match event {
        Event::Found(list) => {
            outcome = Ok(list.into_iter().map(|found| found.url).collect());
            true
        }
        Event::Nothing(failures) => {
            let failures: Vec<_> = failures.iter().map(ToString::to_string).collect();
            outcome = Err(failures.join("; "));
            true
        }
        _ => false,
    });
    outcome
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args()
        .nth(1)
        .ok_or("name the URL of a discovery endpoint")?;
    for orchestrator in discover(Url::parse(&url)?)? {
        println!("{orchestrator}");
    }
    Ok(())
}

#[test]
fn the_orchestrators_of_an_endpoint_are_found() -> Result<(), Box<dyn std::error::Error>> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let url = Url::parse(&format!("http://{}/", listener.local_addr()?))?;
    let endpoint = std::thread::spawn(move || -> io::Result<()> {
        let (mut peer, _) = listener.accept()?;
        for line in io::BufRead::lines(io::BufReader::new(&peer)) {
            if line?.is_empty() {
                break;
            }
        }
        let list = r#"[{"address": "https://orchestrator.example:8935"}]"#;
        write!(peer, "HTTP/1.0 200 OK\r\n\r\n{list}")
    });
    let found: Vec<_> = discover(url)?.iter().map(ToString::to_string).collect();
    assert_eq!(found, ["https://orchestrator.example:8935"]);
    endpoint.join().expect("the endpoint does not panic")?;
    Ok(())
}
