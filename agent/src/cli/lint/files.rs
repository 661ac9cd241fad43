//! Which profiles are judged, and of which kind they are.
//!
//! Invariant: what is no text, or can't be read, is told in its place, and keeps no other file from being
//! read.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use profiles::bundle::Kind;

/// Endings of files beside AppArmor texts that are none.
const NO_APPARMOR: &[&str] = &["json", "md", "yaml", "yml"];
/// What to do with a ConfigMap.
const TAKE_OUT: &str =
    "take the profile out of its ConfigMap, as in yq -r '.data[\"nginx\"]' web.yaml | pavise lint -";

/// One profile, or one text that declares several.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) content: String,
}

/// The profiles at `path`, of `kind` if that is known, or what keeps each from being read.
pub(super) fn texts(path: &Path, kind: Option<Kind>) -> Vec<Result<Text>> {
    if path == Path::new("-") {
        let mut text = Vec::new();
        let read = io::stdin().read_to_end(&mut text).context("reading standard input");
        return vec![read.and_then(|_| named("<stdin>".to_owned(), kind, text))];
    }
    let directory_of = kind.unwrap_or(Kind::Seccomp);
    let files = if path.is_dir() { profiles_below(path, directory_of) } else { Ok(vec![path.to_owned()]) };
    let read = |file: PathBuf| {
        let text = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        named(file.display().to_string(), kind, text)
    };
    files.map_or_else(|error| vec![Err(error)], |files| files.into_iter().map(read).collect())
}

/// The profile `name` of this content.
fn named(name: String, kind: Option<Kind>, content: Vec<u8>) -> Result<Text> {
    match String::from_utf8(content) {
        Ok(content) => {
            let probable = kind.unwrap_or_else(|| probable_kind(&name, &content));
            if probable == Kind::AppArmor && (is_manifest(&content) || kind.is_none() && is_yaml(&name)) {
                bail!("reading {name}: it is YAML, and no profile: {TAKE_OUT}");
            }
            Ok(Text { name, kind: probable, content })
        }
        Err(error) => {
            let byte = error.utf8_error().valid_up_to() + 1;
            bail!("reading {name}: byte {byte} is not UTF-8: save it as UTF-8 text")
        }
    }
}

/// No AppArmor text begins with a brace.
fn probable_kind(name: &str, content: &str) -> Kind {
    let begins_with_brace = content.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']).starts_with('{');
    if begins_with_brace || is_json(Path::new(name)) { Kind::Seccomp } else { Kind::AppArmor }
}

/// No AppArmor text has such a line.
fn is_manifest(content: &str) -> bool {
    content.lines().any(|line| line.starts_with("apiVersion:"))
}

fn is_yaml(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|ending| ending == "yaml" || ending == "yml")
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "json")
}

/// The files below `directory` that hold profiles of `kind`, by their names. Directories whose names begin
/// with a dot are passed over: in them, the kubelet keeps the files of a mounted ConfigMap, which are linked
/// from beside them.
fn profiles_below(directory: &Path, kind: Kind) -> Result<Vec<PathBuf>> {
    let is_meant = |path: &Path| match kind {
        Kind::Seccomp => is_json(path),
        Kind::AppArmor => {
            let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            !is_hidden && !path.extension().is_some_and(|ending| NO_APPARMOR.iter().any(|no| ending == *no))
        }
    };
    let mut files = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).with_context(|| format!("listing {}", directory.display()))? {
            let entry = entry.with_context(|| format!("listing {}", directory.display()))?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                    waiting.push(entry.path());
                }
            } else if is_meant(&entry.path()) {
                files.push(entry.path());
            }
        }
    }
    if files.is_empty() {
        let what = match kind {
            Kind::Seccomp => "no file there ends with .json (--kind apparmor looks for AppArmor texts)",
            Kind::AppArmor => "no file there looks like an AppArmor text",
        };
        bail!("looking for profiles in {}: {what}", directory.display());
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Claims the names of the profiles at `path`, and what is said of those that can't be read.
    fn check_texts(path: &Path, kind: Option<Kind>, expected: &[&str]) {
        let said: Vec<String> = texts(path, kind)
            .into_iter()
            .map(|text| text.map_or_else(|error| format!("{error:#}"), |text| text.name))
            .collect();
        let is_expected = said.iter().zip(expected).all(|(said, expected)| said.ends_with(expected));
        assert!(is_expected && said.len() == expected.len(), "{said:?}");
    }

    #[test]
    fn a_directory_is_searched_and_an_empty_one_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let nothing = "no file there ends with .json (--kind apparmor looks for AppArmor texts)";
        check_texts(directory.path(), None, &[nothing]);
        check_texts(directory.path(), Some(Kind::AppArmor), &["no file there looks like an AppArmor text"]);
        for inner in ["inner", "..2026"] {
            fs::create_dir(directory.path().join(inner)).unwrap();
        }
        for name in
            ["b.json", "a.json", "inner/c.json", "..2026/a.json", "README.md", "usr.bin.x", "x.yaml", ".y"]
        {
            fs::write(directory.path().join(name), "{}").unwrap();
        }
        check_texts(directory.path(), None, &["/a.json", "/b.json", "/inner/c.json"]);
        check_texts(directory.path(), Some(Kind::Seccomp), &["/a.json", "/b.json", "/inner/c.json"]);
        check_texts(directory.path(), Some(Kind::AppArmor), &["/usr.bin.x"]);
    }

    #[test]
    fn what_is_no_text_keeps_no_other_file_from_being_read() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a.json"), b"{\xff").unwrap();
        fs::write(directory.path().join("b.json"), "{}").unwrap();
        let expected = ["/a.json: byte 2 is not UTF-8: save it as UTF-8 text", "/b.json"];
        check_texts(directory.path(), None, &expected);
    }

    #[test]
    fn a_manifest_is_no_profile() {
        let manifest = "apiVersion: v1\nkind: ConfigMap\ndata:\n  nginx: |\n    profile x {\n    }\n";
        let check = |name: &str, kind, content: &str, is_profile: bool| {
            let text = named(name.to_owned(), kind, content.as_bytes().to_vec());
            let said = text.map_or_else(|error| error.to_string(), |_| String::new());
            let expected =
                if is_profile { "" } else { "it is YAML, and no profile: take the profile out of" };
            assert!(said.contains(expected) && said.is_empty() == is_profile, "{name} {kind:?}: {said}");
        };
        check("web.yaml", None, manifest, false);
        check("<stdin>", None, manifest, false);
        check("web", Some(Kind::AppArmor), manifest, false);
        check("kustomization.yml", None, "resources: [pods.yaml]", false);
        // The finding about JSON says it.
        check("web.yaml", Some(Kind::Seccomp), manifest, true);
        check("x.yaml", Some(Kind::AppArmor), "profile x {}", true);
        check("x.yaml", None, "{}", true);
    }

    #[test]
    fn a_kind_follows_from_the_name_or_the_first_character_unless_it_is_said() {
        let check = |name: &str, kind, content: &str, expected| {
            let text = named(name.to_owned(), kind, content.as_bytes().to_vec()).unwrap();
            assert_eq!(text.kind, expected, "{name} {content:?}");
        };
        check("a.json", None, "profile x {}", Kind::Seccomp);
        check("<stdin>", None, "\r\n\t {}", Kind::Seccomp);
        check("a.txt", None, "\u{feff}{", Kind::Seccomp);
        check("usr.bin.x", None, "profile x {}", Kind::AppArmor);
        check("<stdin>", None, "", Kind::AppArmor);
        check("a.json", Some(Kind::AppArmor), "{}", Kind::AppArmor);
        check("x", Some(Kind::Seccomp), "profile x {}", Kind::Seccomp);
    }
}
