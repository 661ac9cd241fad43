//! ARCHITECTURE.md's code map, beside the modules that there are.
//!
//! A module is named by its path below `src`, or by the end of that where the map has said below what: `check/filter`,
//! or `filter`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The crates that the map is about, each with a paragraph of its own.
const CRATES: &[&str] = &["profiles", "agent", "tests", "xtask"];

/// Modules that the map of `architecture` does not name, and what it names that does not exist.
pub(super) fn problems(files: &BTreeMap<PathBuf, String>, architecture: &str) -> Vec<String> {
    let map = architecture.split_once("\n## Code map\n").map_or("", |(_, after)| after);
    let map = map.split_once("\n## ").map_or(map, |(map, _)| map);
    CRATES.iter().flat_map(|name| problems_of_crate(name, files, paragraph(map, name))).collect()
}

/// What the map says of a crate.
fn paragraph<'m>(map: &'m str, name: &str) -> &'m str {
    let after = map.split_once(&format!("\n**`{name}/`**")).map_or("", |(_, after)| after);
    after.split_once("\n**`").map_or(after, |(paragraph, _)| paragraph)
}

fn problems_of_crate(name: &str, files: &BTreeMap<PathBuf, String>, paragraph: &str) -> Vec<String> {
    let below = |path: &Path| path.strip_prefix(name).ok().map(module);
    let modules: BTreeSet<String> = files.keys().filter_map(|path| below(path)).collect();
    let named: BTreeSet<&str> = paragraph.split('`').skip(1).step_by(2).collect();
    let is_named = |module: &str| named.iter().any(|name| is_end(name, module));
    let missing = modules
        .iter()
        .filter_map(|module| module.strip_prefix("src/"))
        .filter(|module| !matches!(*module, "main" | "lib") && !module.split('/').any(|part| part == "tests"))
        .filter(|module| !is_named(module))
        .map(|module| format!("ARCHITECTURE.md's code map does not name `{module}` of {name}"));
    // A directory of files that are not Rust's counts as what is in it.
    let exists = |name: &str| {
        let name = name.trim_end_matches('/');
        modules.iter().any(|module| is_end(name, module) || module.contains(&format!("{name}/")))
    };
    let is_path = |name: &&&str| name.contains('/') && !name.contains('.');
    let unknown = named.iter().filter(is_path).filter(|name| !exists(name)).map(|unknown| {
        format!("ARCHITECTURE.md's code map names `{unknown}` of {name}, which does not exist")
    });
    missing.chain(unknown).collect()
}

/// The path of a module, which a file `mod.rs` has from its directory.
fn module(path: &Path) -> String {
    let path = path.with_extension("");
    let is_mod = path.file_name().is_some_and(|name| name == "mod");
    if is_mod { path.with_file_name("") } else { path }.display().to_string().trim_end_matches('/').to_owned()
}

/// Whether the path `module` is `name`, or ends with it.
fn is_end(name: &str, module: &str) -> bool {
    module.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(map: &str, expected: &[&str]) {
        let paths = [
            "agent/src/main.rs",
            "agent/src/host/mod.rs",
            "agent/src/host/dir.rs",
            "agent/src/host/tests.rs",
        ];
        let files = paths.map(|path| (PathBuf::from(path), String::new())).into();
        let text = format!(
            "# A\n\n`dir`\n\n## Code map\n\n**`agent/`** – pavise.\n{map}\n## Invariants\n\n`host`\n"
        );
        assert_eq!(problems(&files, &text), expected, "{map}");
    }

    #[test]
    fn the_map_names_what_there_is_and_nothing_else() {
        let missing = |module| format!("ARCHITECTURE.md's code map does not name `{module}` of agent");
        check("- `host`: system calls. `dir`: directories.", &[]);
        check("- `host`: system calls. `host/dir`: directories.", &[]);
        check("- `host`: system calls.", &[&missing("host/dir")]);
        check("- `ghost`, `host/dir`.", &[&missing("host")]);
        check("", &[&missing("host"), &missing("host/dir")]);
        check(
            "- `host`, `dir`, `host/file`.",
            &["ARCHITECTURE.md's code map names `host/file` of agent, which does not exist"],
        );
    }
}
