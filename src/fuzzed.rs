//! The functions that are fuzzed, for the crate `fuzz/` and for the test below, which runs them on every input that is
//! kept: `docs/fuzzing.md`. No part of the library's interface: it changes without notice.
//!
//! Each takes any bytes, and panics where a promise is broken. The promises stand in the rooms that make them.

use crate::{api, config, glm, store};

/// A name, and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// What is fuzzed, by the name of its target: there is a file `fuzz/fuzz_targets/NAME.rs` and a directory
/// `fuzz/corpus/NAME` for each.
pub const TARGETS: [Target; 8] = [
    ("answers", answers),
    ("bodies", bodies),
    ("configuration", configuration),
    ("errors", errors),
    ("lines", lines),
    ("rows", rows),
    ("streams", streams),
    ("tasks", tasks),
];

/// A successful response, read as each face reads it.
pub fn answers(data: &[u8]) {
    glm::fuzzed::answers(data);
}

/// The body of a request to each face, and of one that submits jobs.
pub fn bodies(data: &[u8]) {
    api::fuzzed::bodies(data);
}

/// A configuration file, or changes of the configuration that a store keeps.
pub fn configuration(data: &[u8]) {
    config::fuzzed::settings(data);
}

/// A response that refuses, read as each face reads it.
pub fn errors(data: &[u8]) {
    glm::fuzzed::errors(data);
}

/// A file of JSON lines, of a batch over HTTP and of `onelane run`.
pub fn lines(data: &[u8]) {
    api::fuzzed::lines(data);
}

/// A row of the store, of any table, and one of its journal.
pub fn rows(data: &[u8]) {
    store::fuzzed::rows(data);
}

/// A streamed response, read as each face reads it, and its events as followers get them.
pub fn streams(data: &[u8]) {
    glm::fuzzed::streams(data);
    api::fuzzed::events(data);
}

/// What GLM's asynchronous API answers.
pub fn tasks(data: &[u8]) {
    glm::fuzzed::tasks(data);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::panic::catch_unwind;
    use std::path::{Path, PathBuf};

    use super::*;

    fn fuzz(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz")
            .join(path)
    }

    fn files(directory: &Path) -> Vec<PathBuf> {
        let entries =
            fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    fn stems(directory: &str) -> BTreeSet<String> {
        let files = files(&fuzz(directory)).into_iter();
        files
            .map(|file| file.file_stem().unwrap().to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn every_input_that_is_kept_of_the_fuzzers_keeps_the_promises() {
        let mut broken = Vec::new();
        for (name, run) in TARGETS {
            let regressions = fuzz("regressions").join(name);
            let mut inputs = files(&fuzz("corpus").join(name));
            if regressions.exists() {
                inputs.extend(files(&regressions));
            }
            assert!(inputs.len() >= 3, "{name} has hardly a seed");
            for path in inputs {
                let input = fs::read(&path).unwrap();
                if catch_unwind(|| run(&input)).is_err() {
                    broken.push(path);
                }
            }
        }
        assert!(broken.is_empty(), "{broken:#?}");
    }

    #[test]
    fn each_target_of_the_fuzzers_has_a_function_a_program_and_seeds() {
        let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(names.len(), TARGETS.len());
        assert_eq!(stems("fuzz_targets"), names);
        assert_eq!(stems("corpus"), names);
        assert!(stems("regressions").is_subset(&names));
        let manifest: toml::Table = fs::read_to_string(fuzz("Cargo.toml"))
            .unwrap()
            .parse()
            .unwrap();
        let programs = manifest["bin"].as_array().unwrap();
        let programs: BTreeSet<String> = programs
            .iter()
            .map(|bin| bin["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(programs, names);
        let page = fs::read_to_string(fuzz("../docs/fuzzing.md")).unwrap();
        for name in names {
            let program = fs::read_to_string(fuzz(&format!("fuzz_targets/{name}.rs"))).unwrap();
            assert!(
                program.contains(&format!("onelane::fuzzed::{name}(")),
                "{name}"
            );
            assert!(
                page.contains(&format!("| `{name}` |")),
                "docs/fuzzing.md: {name}"
            );
        }
    }

    #[test]
    fn what_is_kept_of_the_fuzzers_is_small() {
        let bytes: u64 = TARGETS
            .iter()
            .flat_map(|(name, _)| files(&fuzz("corpus").join(name)))
            .map(|file| fs::metadata(file).unwrap().len())
            .sum();
        assert!(bytes <= 150 * 1024, "{bytes} bytes");
    }
}
