//! The trickle machines alone, against any trickle server: `trickle pub URL SEGMENT_BYTES PAUSE_MS < in`, `trickle sub URL >
//! out`. Without a pause readers fall out of the server's window of five segments: trickle has no other brake.

use std::io::{Read, Write};
use std::time::Duration;

use bytes::Bytes;
use livepeer_tokio::core::trickle::{self, Ending, Start, publisher, subscriber};
use livepeer_tokio::{Url, driver};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["pub", url, bytes, pause] => {
            publish(
                url.parse()?,
                bytes.parse()?,
                Duration::from_millis(pause.parse()?),
            )
            .await
        }
        ["sub", url] => subscribe(url.parse()?).await,
        _ => Err("usage: trickle pub URL SEGMENT_BYTES PAUSE_MS | trickle sub URL".into()),
    }
}

async fn publish(url: Url, size: usize, pause: Duration) -> Result<(), Box<dyn std::error::Error>> {
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input)?;
    let driver = driver();
    let config = publisher::Config {
        create: true,
        ..publisher::Config::default()
    };
    let channel = driver.drive(trickle::Publisher::new(driver.now(), config, url));
    let (mut delivered, mut resumed) = (0, 0);
    let segments: Vec<Bytes> = input.chunks(size).map(Bytes::copy_from_slice).collect();
    let mut next = segments.iter();
    let mut waiting = next.next();
    loop {
        // Begin as many as may be on their way.
        while let Some(segment) = waiting {
            if channel.with(|channel, now| channel.begin(now)).is_err() {
                break;
            }
            channel.with(|channel, now| {
                let _ = channel.write(now, segment.clone());
                let _ = channel.end(now);
            });
            waiting = next.next();
            tokio::time::sleep(pause).await;
        }
        if delivered == segments.len() {
            channel.with(|channel, now| channel.close(now));
        }
        match channel.next().await {
            Some(publisher::Event::Delivered(_)) => delivered += 1,
            Some(publisher::Event::Resumed(..)) => resumed += 1,
            Some(publisher::Event::Lost(seq, failure)) => {
                return Err(format!("{seq}: {failure}").into());
            }
            Some(publisher::Event::Closed(Ending::Closed)) | None => break,
            Some(publisher::Event::Closed(ending)) => return Err(format!("{ending:?}").into()),
            Some(_) => {}
        }
    }
    eprintln!(
        "{delivered} of {} segments delivered, {resumed} resumed",
        segments.len()
    );
    Ok(())
}

async fn subscribe(url: Url) -> Result<(), Box<dyn std::error::Error>> {
    let driver = driver();
    let config = subscriber::Config::default();
    let channel = driver.drive(trickle::Subscriber::new(
        driver.now(),
        config,
        url,
        Start::At(trickle::Seq::ZERO),
    ));
    let (mut segments, mut out) = (0, std::io::stdout().lock());
    while let Some(event) = channel.next().await {
        match event {
            subscriber::Event::Data(_, data) => out.write_all(&data)?,
            subscriber::Event::End(_) => segments += 1,
            subscriber::Event::Gap(missed) => return Err(format!("missed {missed:?}").into()),
            subscriber::Event::Closed(Ending::EndOfStream) => break,
            subscriber::Event::Closed(ending) => return Err(format!("{ending:?}").into()),
            _ => {}
        }
    }
    eprintln!("{segments} segments read");
    Ok(out.flush()?)
}
