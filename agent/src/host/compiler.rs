//! Which AppArmor compiler there is.
//!
//! Invariant: two compilers of one identity make the same policy of the same text, for the same kernel.

use std::fs;
use std::path::Path;

use profiles::digest::Digest;

use super::error::HostError;

/// Digests the parser, how it is called, and all that a text can include: names and contents of the files at
/// and below `paths`. Links are not followed: where they lead to is digested.
///
/// It takes milliseconds.
///
/// # Errors
/// Something can't be read. Without the packages of AppArmor, the first of them is absent.
pub(crate) fn compiler_identity(paths: &[&Path], options: &[&str]) -> Result<Digest, HostError> {
    let mut listed: Vec<String> = options.iter().map(|option| format!("option {option:?}")).collect();
    for path in paths {
        list(path, path, &mut listed)?;
    }
    Ok(Digest::of(listed.join("\n").as_bytes()))
}

/// Adds a line to `listed` for each file at or below `path`, in the order of their names.
fn list(top: &Path, path: &Path, listed: &mut Vec<String>) -> Result<(), HostError> {
    let kind =
        fs::symlink_metadata(path).map_err(|error| HostError::new("inspecting", path, error))?.file_type();
    let name = path.strip_prefix(top).unwrap_or(path);
    if kind.is_dir() {
        let entries = fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut paths: Vec<_> = entries
            .map_err(|error| HostError::new("listing", path, error))?
            .into_iter()
            .map(|entry| entry.path())
            .collect();
        paths.sort();
        return paths.iter().try_for_each(|path| list(top, path, listed));
    }
    if kind.is_symlink() {
        let target = fs::read_link(path).map_err(|error| HostError::new("reading", path, error))?;
        listed.push(format!("link {} {}", on_one_line(name), on_one_line(&target)));
    } else if kind.is_file() {
        let content = fs::read(path).map_err(|error| HostError::new("reading", path, error))?;
        listed.push(format!("file {} {}", on_one_line(name), Digest::of(&content)));
    }
    Ok(())
}

/// A path without spaces and line ends, so that no two lists are equal by chance.
fn on_one_line(path: &Path) -> String {
    path.as_os_str().as_encoded_bytes().escape_ascii().to_string().replace(' ', "\\x20")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// The identity of a compiler that `change` was done to.
    fn identity(change: impl FnOnce(&Path), options: &[&str]) -> Digest {
        let temporary = tempfile::tempdir().unwrap();
        let at = |name: &str| temporary.path().join(name);
        fs::create_dir_all(at("d/abstractions")).unwrap();
        for name in ["parser", "d/abstractions/base", "d/abstractions/x"] {
            fs::write(at(name), name).unwrap();
        }
        change(temporary.path());
        compiler_identity(&[&at("parser"), &at("d")], options).unwrap()
    }

    #[test]
    fn whatever_can_change_the_policy_changes_the_identity() {
        let first = identity(|_| {}, &["-j0"]);
        assert_eq!(
            first,
            identity(|_| {}, &["-j0"]),
            "where it lies, and when it was written, is no difference"
        );
        let others = [
            identity(|at| fs::write(at.join("parser"), "other").unwrap(), &["-j0"]),
            identity(|at| fs::write(at.join("d/abstractions/x"), "other").unwrap(), &["-j0"]),
            identity(|at| fs::write(at.join("d/new"), "").unwrap(), &["-j0"]),
            identity(|at| fs::rename(at.join("d/abstractions/x"), at.join("d/x")).unwrap(), &["-j0"]),
            identity(|at| fs::remove_file(at.join("d/abstractions/x")).unwrap(), &["-j0"]),
            identity(|at| symlink("/", at.join("d/link")).unwrap(), &["-j0"]),
            identity(|at| symlink("/etc", at.join("d/link")).unwrap(), &["-j0"]),
            identity(|_| {}, &["-j0", "-Ono-minimize"]),
            identity(|_| {}, &[]),
        ];
        for (index, other) in others.iter().enumerate() {
            assert!(*other != first && !others[..index].contains(other), "change {index}");
        }
    }

    #[test]
    fn a_compiler_that_is_not_there_has_no_identity() {
        let error = compiler_identity(&[Path::new("/nowhere/parser")], &[]).unwrap_err();
        assert!(
            error.in_full().starts_with("inspecting /nowhere/parser: No such file"),
            "{}",
            error.in_full()
        );
    }
}
