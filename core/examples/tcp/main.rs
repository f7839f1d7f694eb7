//! A discovery over a plain `TcpStream`: the loop that the crate's documentation shows, as a program.
//!
//! `cargo run -p livepeer-core --example tcp -- http://127.0.0.1:7936/discover-orchestrators`, while
//! `livepeer-gateway devnet` runs, lists the orchestrators that its signer knows.

use livepeer_core::discovery::{Config, Discovery, Event, Origin, Source};
use livepeer_core::http::Url;

include!("drive.rs");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args()
        .nth(1)
        .ok_or("name the URL of a discovery endpoint")?;
    let endpoint = Source::Endpoint {
        url: Url::parse(&url)?,
        headers: Headers::new(),
    };
    // One answer is enough: without this the discovery asks again every minute.
    let config = Config {
        refresh: None,
        ..Config::default()
    };
    let mut discovery = Discovery::new(
        Time::from_secs(1),
        config,
        vec![(Origin::Signer, endpoint.opened())],
    );
    drive(&mut discovery, |event| match event {
        Event::Found(orchestrators) => {
            for found in orchestrators {
                println!("{}", found.url);
            }
            true
        }
        Event::Nothing(failures) => {
            for failure in failures {
                eprintln!("{failure}");
            }
            true
        }
        _ => false,
    });
    Ok(())
}
