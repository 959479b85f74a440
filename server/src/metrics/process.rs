//! What Prometheus' own clients tell of a process, under their names: dashboards know them. Read as they are asked for; where there is no
//! `/proc`, they are absent.

use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// What `/proc` counts the processor's time in, a second: on all of Linux' architectures that have a musl or glibc.
const TICKS: f64 = 100.0;

/// This process.
#[derive(Debug)]
pub(super) struct Process {
    since: f64,
}

impl Default for Process {
    fn default() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { since: since.as_secs_f64() }
    }
}

impl Collector for Process {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: Option<f64>| match value {
            None => Ok(()),
            Some(value) => {
                let gauge = ConstGauge::new(value);
                gauge.encode(to.encode_descriptor(name, help, unit, gauge.metric_type())?)
            }
        };
        gauge("process_resident_memory", "Memory that is resident", Some(&Unit::Bytes), resident())?;
        gauge("process_open_fds", "Open file descriptors", None, open_descriptors())?;
        gauge("process_max_fds", "File descriptors that may be open", None, most_descriptors())?;
        let start = "When the process began, in seconds since 1970";
        gauge("process_start_time", start, Some(&Unit::Seconds), Some(self.since))?;
        if let Some(seconds) = processor_seconds() {
            let spent = ConstCounter::new(seconds);
            let help = "Processor time, of user and system";
            spent.encode(to.encode_descriptor(
                "process_cpu",
                help,
                Some(&Unit::Seconds),
                spent.metric_type(),
            )?)?;
        }
        Ok(())
    }
}

fn processor_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in brackets, may have anything in it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<f64>);
    Some((times.next()?.ok()? + times.next()?.ok()?) / TICKS)
}

fn resident() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kibibytes.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? * 1024.0)
}

fn open_descriptors() -> Option<f64> {
    // One is the folder's own.
    let open = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    #[expect(clippy::cast_precision_loss, reason = "they are few")]
    let open = open as f64;
    Some(open)
}

fn most_descriptors() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    files.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_files_and_time() {
        let filled = vec![1_u8; 8 << 20];
        let before = processor_seconds().unwrap();
        let mut sum = 0_u64;
        while processor_seconds().unwrap() < before + 0.05 {
            sum = filled.iter().fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)));
        }
        assert!(sum > 0);
        assert!(resident().unwrap() > 8.0 * 1024.0 * 1024.0);
        let files = open_descriptors().unwrap();
        let _one_more = fs::File::open("/proc/self/stat").unwrap();
        assert!(files >= 3.0 && most_descriptors().unwrap() > files);
    }
}
