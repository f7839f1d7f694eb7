//! A paid live video job in fifteen lines: `cargo run --example live -p livepeer-tokio -- clip.ts`, while
//! `livepeer-gateway devnet` runs.

use livepeer_tokio::Gateway;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let clip = std::fs::read(std::env::args().nth(1).ok_or("name an MPEG-TS file")?)?;
    let gateway = Gateway::new();
    let job = gateway.live_video("noop").signer("http://127.0.0.1:7936");
    let (job, mut input, mut output) = job.orchestrator("https://127.0.0.1:8935").start().await?;
    let publishing = tokio::spawn(async move { input.publish_ts(&clip[..]).await });
    while let Some((seq, segment)) = output.next_segment().await? {
        println!("segment {seq}: {} bytes back", segment.len());
    }
    publishing.await??;
    println!("paid {} wei", job.spent().expected_value.whole_wei());
    Ok(job.wait().await?)
}
