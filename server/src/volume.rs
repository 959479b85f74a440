//! Where a folder lies, for those who believe that it outlives the container.

use std::path::Path;

use tracing::warn;

/// Logs that a folder goes with its container, or with the power, if it does.
pub(crate) fn warn_of_loss(folder: &Path) {
    // The folder may not be there yet; its parent then says it.
    let there = folder.ancestors().find_map(|one| one.canonicalize().ok());
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mounts") else { return };
    let Some(kind) = there.and_then(|folder| file_system(&mounts, &folder)) else { return };
    let folder = folder.display();
    match kind.as_str() {
        "overlay" => warn!(
            %folder,
            "the queue is in the container's own layer, and goes when the container is replaced; mount a volume there"
        ),
        "tmpfs" => warn!(%folder, "the queue is in memory (tmpfs), and goes with the machine's power"),
        _ => {}
    }
}

/// The kind of the file system that holds a folder: that of the longest mount point above it; of those that hide one
/// another, the last (proc_mounts(5)).
fn file_system(mounts: &str, folder: &Path) -> Option<String> {
    let points = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        folder.starts_with(point.replace("\\040", " ")).then_some((point.len(), kind))
    });
    points.max_by_key(|(length, _)| *length).map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_point_above_a_folder_decides() {
        let mounts = "overlay / overlay rw 0 0\n/dev/vda1 /data ext4 rw 0 0\ntmpfs /data/fast tmpfs rw 0 0\n\
            /dev/vdb /my\\040disk xfs rw 0 0\nproc /proc proc rw 0 0\n";
        let kind = |folder: &str| file_system(mounts, Path::new(folder));
        assert_eq!(kind("/database").as_deref(), Some("overlay"));
        assert_eq!(kind("/data").as_deref(), Some("ext4"));
        assert_eq!(kind("/data/queue").as_deref(), Some("ext4"));
        assert_eq!(kind("/data/fast/queue").as_deref(), Some("tmpfs"));
        assert_eq!(kind("/my disk/queue").as_deref(), Some("xfs"));
    }

    #[test]
    fn a_mount_that_hides_another_is_the_one_that_counts() {
        let mounts = "/dev/vda1 /data ext4 rw 0 0\ntmpfs /data tmpfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/data")).as_deref(), Some("tmpfs"));
    }
}
