//! The GPU that an app runs on, as the tool of its maker tells.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use livepeer_core::wire::runner::Gpu;
use livepeer_runtime::{Driver, Runtime};

use crate::cmd::socket::sleep_until;

/// The tool, and the question: each GPU in a line.
const TOOL: &str = "nvidia-smi";
const QUESTION: [&str; 2] = [
    "--query-gpu=index,uuid,name,memory.total",
    "--format=csv,noheader,nounits",
];
/// The list of GPUs that programs may use, the first one first.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";
/// How long the tool may take.
const TELLS_WITHIN: Duration = Duration::from_secs(2);
/// How often the tool is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// At most this much is read of what the tool says.
const MAX_SAID: u64 = 16 << 10;

/// The first GPU that programs may use; `None` if there is none, or none that is known.
pub(super) async fn found<R: Runtime>(driver: &Driver<R>) -> Option<Gpu> {
    let mut tool = Command::new(TOOL)
        .args(QUESTION)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let late = driver.now() + TELLS_WITHIN;
    let mut ended = tool.try_wait();
    while matches!(ended, Ok(None)) && driver.now() < late {
        sleep_until(driver, driver.now() + LOOK).await;
        ended = tool.try_wait();
    }
    if !matches!(ended, Ok(Some(status)) if status.success()) {
        // If it has ended there is nothing to be done.
        let _ = tool.kill();
        let _ = tool.wait();
        return None;
    }
    let mut said = String::new();
    let stdout = tool.stdout.take()?;
    stdout.take(MAX_SAID).read_to_string(&mut said).ok()?;
    chosen(&said, std::env::var(VISIBLE).ok().as_deref())
}

/// The GPU of these that a program uses.
fn chosen(said: &str, visible: Option<&str>) -> Option<Gpu> {
    let first = visible.map(|all| all.split(',').next().unwrap_or_default().trim());
    said.lines().find_map(|line| {
        let mut parts = line.splitn(4, ',').map(str::trim);
        let [index, id, name, memory] = [(); 4].map(|()| parts.next().unwrap_or_default());
        let is_it = match first {
            None => true,
            Some("") => false,
            Some(first) => first == index || id.starts_with(first),
        };
        (is_it && !name.is_empty()).then(|| Gpu {
            id: id.to_owned(),
            name: name.to_owned(),
            vram_mb: memory.parse().unwrap_or(0),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_gpu_that_programs_may_use_is_told() {
        let said = "0, GPU-aa, NVIDIA A100, 40960\n1, GPU-bb, NVIDIA L4, [N/A]\n";
        for (visible, name, memory) in [
            (None, Some("NVIDIA A100"), 40_960),
            (Some("1,0"), Some("NVIDIA L4"), 0),
            (Some("GPU-aa"), Some("NVIDIA A100"), 40_960),
            (Some(""), None, 0),
            (Some("-1"), None, 0),
            (Some("7"), None, 0),
        ] {
            let gpu = chosen(said, visible);
            assert_eq!(gpu.as_ref().map(|gpu| &*gpu.name), name, "{visible:?}");
            assert_eq!(gpu.map_or(0, |gpu| gpu.vram_mb), memory, "{visible:?}");
        }
        assert_eq!(chosen("no devices were found", None), None);
    }
}
