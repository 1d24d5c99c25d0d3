//! A disk that can be full or read-only, also for root.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of its own, mounted for the test and unmounted on drop.
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts a tmpfs of so many KiB on a directory; `None`, told on standard error, where that is not
    /// permitted.
    pub fn mount(on: &Path, kib: u32) -> Option<Self> {
        std::fs::create_dir_all(on).unwrap();
        let size = format!("size={kib}k");
        let args = ["-t", "tmpfs", "-o", &size, "tmpfs"];
        mount(&args, on).then(|| Self(on.to_owned()))
    }

    /// Mounts it anew with another option, such as `size=16m` or `ro`.
    pub fn remount(&self, option: &str) {
        let option = format!("remount,{option}");
        assert!(mount(&["-o", &option], &self.0), "{option}");
    }
}

fn mount(args: &[&str], on: &Path) -> bool {
    let why = match Command::new("mount").args(args).arg(on).output() {
        Ok(done) if done.status.success() => return true,
        Ok(done) => String::from_utf8_lossy(&done.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    // Past the test runner, which keeps what passing tests print to itself.
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED, since nothing can be mounted here: {}",
        why.trim()
    );
    false
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily, should a process that a failed test left behind still be in it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
