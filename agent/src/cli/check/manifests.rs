//! Pods in manifests.
//!
//! Invariant: what can't be read is told in its place, and keeps no other file from being read.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::{Options, Spanned};

use super::Workload;
use crate::cluster::lookup::read_pod;

/// Endings of files that are read of a directory.
const ENDINGS: [&str; 3] = ["json", "yaml", "yml"];

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Manifests {
    pub(super) workloads: Vec<Workload>,
    /// How many objects there are beside them.
    pub(super) others: usize,
    /// What could not be read.
    pub(super) failures: Vec<String>,
}

impl Manifests {
    /// Reads what is at `path`: a file, a directory, or standard input.
    pub(super) fn read(&mut self, path: &Path) {
        if path == Path::new("-") {
            let mut text = Vec::new();
            match io::stdin().read_to_end(&mut text).context("reading standard input") {
                Ok(_) => self.add("<stdin>", &text),
                Err(error) => self.failures.push(format!("{error:#}")),
            }
            return;
        }
        let files = if path.is_dir() { manifests_below(path) } else { Ok(vec![path.to_owned()]) };
        match files {
            Ok(files) => files.iter().for_each(|file| self.read_file(file)),
            Err(error) => self.failures.push(format!("{error:#}")),
        }
    }

    fn read_file(&mut self, file: &Path) {
        match fs::read(file).with_context(|| format!("reading {}", file.display())) {
            Ok(text) => self.add(&file.display().to_string(), &text),
            Err(error) => self.failures.push(format!("{error:#}")),
        }
    }

    /// Adds the documents of `text`, which is that of the file `name`. JSON is YAML.
    fn add(&mut self, name: &str, mut text: &[u8]) {
        let is_template = text.windows(2).any(|two| two == b"{{");
        for document in serde_saphyr::read_with_options::<_, Spanned<Value>>(&mut text, options()) {
            let read = match &document {
                Ok(document) => {
                    let place = format!("{name}:{}", document.referenced.line());
                    self.add_object(&place, &document.value).with_context(|| format!("reading {place}"))
                }
                Err(error) => Err(not_yaml(name, error, is_template)),
            };
            self.failures.extend(read.err().map(|error| format!("{error:#}")));
        }
    }

    /// Adds an object, which may be a list of others.
    fn add_object(&mut self, place: &str, object: &Value) -> Result<()> {
        let kind = object["kind"].as_str().unwrap_or_default();
        if let Some(items) = object["items"].as_array().filter(|_| kind.ends_with("List")) {
            return items.iter().try_for_each(|item| self.add_object(place, item));
        }
        let Some((path, template)) = template(kind, object) else {
            self.others += 1;
            return Ok(());
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let metadata = &object["metadata"];
        let name = text(&metadata["name"]).or_else(|| text(&metadata["generateName"])).unwrap_or_default();
        let annotations =
            Option::<BTreeMap<String, String>>::deserialize(&template["metadata"]["annotations"])
                .context("reading the annotations of the pod")?;
        let (pod, constraints) = read_pod(&annotations.unwrap_or_default(), &template["spec"], None)?;
        self.workloads.push(Workload {
            place: Some(place.to_owned()),
            kind: kind.to_owned(),
            namespace: text(&metadata["namespace"]),
            name,
            path,
            pod,
            constraints,
        });
        Ok(())
    }
}

/// Where in an object of `kind` the pod's `spec` is, and what that is in. None if it makes no pods. What is of no
/// kind of Kubernetes' own has it where most kinds have it, or not at all.
fn template<'o>(kind: &str, object: &'o Value) -> Option<(&'static str, &'o Value)> {
    let (path, template) = match kind {
        "Pod" => ("spec", object),
        "PodTemplate" => ("template.spec", &object["template"]),
        "CronJob" => {
            ("spec.jobTemplate.spec.template.spec", &object["spec"]["jobTemplate"]["spec"]["template"])
        }
        _ => ("spec.template.spec", &object["spec"]["template"]),
    };
    template["spec"]["containers"].is_array().then_some((path, template))
}

/// The limits are for files of all that a cluster runs, and keep a small file from being read as a large one.
fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 100_000,
        },
        with_snippet: false,
    }
}

fn not_yaml(name: &str, error: &serde_saphyr::Error, is_template: bool) -> anyhow::Error {
    let advice = if is_template {
        "; it may be a template that is not rendered: helm template … | pavise check -f - reads what it makes"
    } else {
        ""
    };
    anyhow!("reading {name}: {error}{advice}")
}

/// The files below `directory` that may be manifests, by their names. What is hidden is passed over.
fn manifests_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let is_hidden =
        |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let is_manifest =
        |path: &Path| path.extension().is_some_and(|ending| ENDINGS.iter().any(|one| ending == *one));
    let mut files = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).with_context(|| format!("listing {}", directory.display()))? {
            let entry = entry.with_context(|| format!("listing {}", directory.display()))?;
            let path = entry.path();
            if is_hidden(&path) {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push(path);
            } else if is_manifest(&path) {
                files.push(path);
            }
        }
    }
    if files.is_empty() {
        return Err(anyhow!(
            "looking for manifests in {}: no file there ends with .yaml, .yml or .json",
            directory.display()
        ));
    }
    files.sort();
    Ok(files)
}
