//! Each fact has one place: what a change of it touches is read off the sources.

use std::collections::BTreeMap;

use super::{read, root, rust_files};

/// The program's part of a file, without its tests.
fn program(source: &str) -> &str {
    source.split("#[cfg(test)]").next().unwrap_or(source)
}

/// Sources of the program below a directory, by their paths.
fn sources(below: &str) -> BTreeMap<String, String> {
    let files = rust_files(&root().join(below)).into_iter();
    let named = files.map(|file| {
        let path = file.strip_prefix(root()).unwrap().display().to_string();
        (path, read(&file))
    });
    let is_test = |path: &str| path.contains("/tests") || path.ends_with("_tests.rs");
    named.filter(|(path, _)| !is_test(path)).collect()
}

/// A new field of a noun is in its struct alone, and shows in the golden files: nothing else names the fields of
/// what is shown. The shapes with set names, and what lists show of bodies, are told from others by their places.
#[test]
fn a_field_of_a_noun_has_no_second_place_but_in_the_shapes_with_set_names() {
    let mut views = Vec::new();
    for (path, source) in sources("src") {
        let words: Vec<&str> = program(&source).split_whitespace().collect();
        for pair in words.windows(2) {
            if pair[0] == "struct" && pair[1].contains("View") {
                let name = pair[1].trim_end_matches(|c: char| !c.is_alphanumeric());
                views.push(format!("{path} {name}"));
            }
        }
    }
    let set = [
        // `GLMConfig`.
        "src/config/change.rs GlmConfigView",
        // `GLMCallLog` with its three parts, and `GLMRequestQueue`; `GLMUsageStats` is the row itself.
        "src/views/call.rs CallView",
        "src/views/call.rs RequestView",
        "src/views/call.rs ResponseView",
        "src/views/call.rs PartsView",
        "src/views/job.rs JobView",
    ];
    let views: Vec<&str> = views
        .iter()
        .map(|view| view.split('<').next().unwrap())
        .collect();
    assert_eq!(views, set);
    // What is in a job's or a call's row and on no wire is marked at the field; the views only add.
    let job = read(root().join("src/views/job.rs"));
    assert!(job.contains("#[serde(flatten)]\n    job: Job,"));
}

/// A new endpoint is a row of the table and its handler: nothing else knows a path, and every row's handler is
/// the only one of its name.
#[test]
fn an_endpoint_has_no_place_but_the_table_and_its_handler() {
    let table = read(root().join("src/api/endpoints.rs"));
    let rows = program(&table).matches("row!(").count();
    assert!(rows > 40, "{rows}");
    for (path, source) in sources("src/api") {
        let names_paths = program(&source).matches("\"/api/").count();
        let allowed = match path.as_str() {
            "src/api/endpoints.rs" => usize::MAX,
            // Where a job that was taken is found.
            "src/api/jobs.rs" => 1,
            _ => 0,
        };
        assert!(names_paths <= allowed, "{path} names {names_paths} paths");
    }
}

/// Settings that the configuration itself reads beside their fields, and why.
const READ_BY_THE_CONFIGURATION: &[(&str, &str)] = &[
    (
        "admin_token",
        "an environment variable sets it; an open address needs it",
    ),
    ("admin_token_file", "an error names it"),
    (
        "api_key",
        "environment variables set it; a call needs it; it is shown masked",
    ),
    ("api_key_file", "it is read again while the program runs"),
    ("base_url", "it chooses the price list"),
    (
        "ca_file",
        "it is read at the start, and an error says where it was named",
    ),
    (
        "low_balance",
        "it is text, and an amount to whoever compares it",
    ),
    ("price_list", "so does this"),
    (
        "cached_input",
        "a row of prices is shown with the shipped ones, and checked with its fellows",
    ),
    ("completion_from", "so is this"),
    ("prompt_from", "so is this"),
    ("prompt_to", "so is this"),
];

/// A new setting is a field with its doc, default and bounds, and the code that uses it: in the configuration
/// nothing names it a second time.
#[test]
fn a_setting_has_no_place_but_its_field_and_its_use() {
    let files = sources("src/config");
    let code = |source: &String| -> String {
        let lines = program(source).lines();
        let lines = lines.filter(|line| !line.trim_start().starts_with("//"));
        lines.map(|line| format!("{line}\n")).collect()
    };
    let code: String = files.values().map(code).collect();
    let words: Vec<&str> = code
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .collect();
    let shipped = read(root().join("config.toml"));
    let mut settings = 0;
    for line in shipped.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        // A name of one word is a word of the code, too.
        let Some((name, _)) = line
            .split_once(" = ")
            .filter(|(name, _)| name.contains('_'))
        else {
            continue;
        };
        settings += 1;
        let known = READ_BY_THE_CONFIGURATION
            .iter()
            .any(|(known, _)| *known == name);
        let times = words.iter().filter(|word| **word == name).count();
        assert!(
            known || times <= 1,
            "{name} stands {times} times in src/config"
        );
    }
    assert!(settings > 60, "{settings}");
}
