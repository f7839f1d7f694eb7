//! Twenty lines that run a paid live video job: `cargo run --example live -p livepeer-tokio -- clip.ts`, while
//! `livepeer-gateway devnet` runs.

use livepeer_tokio::{Error, LiveVideoJob, driver};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let clip = std::fs::read(std::env::args().nth(1).ok_or("name an MPEG-TS file")?)?;
    let job = LiveVideoJob::builder(&driver(), "noop")
        .orchestrator("https://127.0.0.1:8935")
        .signer("http://127.0.0.1:7936")
        .start()
        .await?;
    let (mut input, mut output) = (job.publisher(), job.output());
    let publish = async {
        for segment in clip.chunks(188 * 500) {
            input.publish(segment.to_vec().into()).await?;
        }
        input.close().await;
        Ok::<_, Error>(())
    };
    let read = async {
        while let Some((seq, segment)) = output.next_segment().await? {
            println!("segment {seq}: {} bytes back", segment.len());
        }
        Ok(())
    };
    tokio::try_join!(publish, read)?;
    let paid = job.spent().expected_value.whole_wei();
    println!("paid tickets worth {paid} wei");
    Ok(job.wait().await?)
}
