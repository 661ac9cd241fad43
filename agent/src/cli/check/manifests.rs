//! Pods in manifests.
//!
//! Invariant: what can't be read is told in its place, and keeps no other file from being read.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use profiles::pod::Limits;
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
    /// How much of each pod is read.
    pub(super) limits: Limits,
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
                    let kind = document.value["kind"].as_str().unwrap_or_default();
                    self.add_object(&place, kind, &document.value).with_context(|| format!("reading {place}"))
                }
                Err(error) => Err(not_yaml(name, error, is_template)),
            };
            self.failures.extend(read.err().map(|error| format!("{error:#}")));
        }
    }

    /// Adds an object of `kind`, which may be a list of others.
    fn add_object(&mut self, place: &str, kind: &str, object: &Value) -> Result<()> {
        if let (Some(items), Some(of)) = (object["items"].as_array(), kind.strip_suffix("List")) {
            // In a list of one kind, as the API server sends it, the items do not say theirs.
            return items
                .iter()
                .try_for_each(|item| self.add_object(place, item["kind"].as_str().unwrap_or(of), item));
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
        let (pod, constraints) =
            read_pod(&annotations.unwrap_or_default(), &template["spec"], None, self.limits)?;
        self.workloads.push(Workload {
            place: Some(place.to_owned()),
            kind: kind.to_owned(),
            namespace: text(&metadata["namespace"]),
            name,
            owner: None,
            path,
            pod,
            constraints,
        });
        Ok(())
    }
}

/// Where in an object of `kind` the pod's `spec` is, and what that is in. None if it makes no pods. What is
/// of no kind of Kubernetes' own has it where most kinds have it, or not at all.
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
            max_events: 4_000_000,
            max_nodes: 1_000_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
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

#[cfg(test)]
mod tests {
    use profiles::pod::Asked;

    use super::*;

    fn read(text: &str) -> Manifests {
        let mut manifests = Manifests::default();
        manifests.add("x.yaml", text.as_bytes());
        manifests
    }

    /// Claims what is read from `text`: each workload with its place, its path and its references, how many
    /// other objects there are, and how failures begin.
    fn check(text: &str, workloads: &[&str], others: usize, failures: &[&str]) {
        let read = read(text);
        let shown = |one: &Workload| {
            let references = one.pod.containers.iter().filter_map(|container| match &container.apparmor {
                Asked::Localhost(reference) => Some(format!("{}={reference}", container.name)),
                _ => None,
            });
            let references = references.collect::<Vec<_>>().join(",");
            let place = one.place.as_deref().unwrap_or_default();
            let namespace = one.namespace.as_deref().unwrap_or_default();
            format!("{place} {} {namespace}/{} {} {references}", one.kind, one.name, one.path)
        };
        assert_eq!(read.workloads.iter().map(shown).collect::<Vec<_>>(), workloads, "{text}");
        assert_eq!(read.others, others, "{text}");
        let is_expected = read.failures.iter().zip(failures).all(|(one, expected)| one.starts_with(expected));
        assert!(is_expected && read.failures.len() == failures.len(), "{:#?}", read.failures);
    }

    const SPEC: &str = r#"{"containers": [{"name": "c",
        "securityContext": {"appArmorProfile": {"type": "Localhost", "localhostProfile": "p"}}}]}"#;

    #[test]
    fn each_kind_has_its_pods_where_kubernetes_has_them() {
        let pod =
            |kind: &str| format!(r#"{{"kind": "{kind}", "metadata": {{"name": "n"}}, "spec": {SPEC}}}"#);
        check(&pod("Pod"), &["x.yaml:1 Pod /n spec c=p"], 0, &[]);
        check(&pod("Podlike"), &[], 1, &[]);
        let of = |kind: &str, inside: &str| {
            format!(
                r#"{{"kind": "{kind}", "metadata": {{"namespace": "ns", "generateName": "n-"}}, {inside}}}"#
            )
        };
        let template = format!(r#""template": {{"spec": {SPEC}}}"#);
        for kind in [
            "Deployment",
            "StatefulSet",
            "DaemonSet",
            "ReplicaSet",
            "ReplicationController",
            "Job",
            "Rollout",
        ] {
            let text = of(kind, &format!(r#""spec": {{{template}}}"#));
            check(&text, &[&format!("x.yaml:1 {kind} ns/n- spec.template.spec c=p")], 0, &[]);
        }
        check(&of("PodTemplate", &template), &["x.yaml:1 PodTemplate ns/n- template.spec c=p"], 0, &[]);
        let job = format!(r#""spec": {{"jobTemplate": {{"spec": {{{template}}}}}}}"#);
        check(
            &of("CronJob", &job),
            &["x.yaml:1 CronJob ns/n- spec.jobTemplate.spec.template.spec c=p"],
            0,
            &[],
        );
        let list = format!(r#"{{"kind": "List", "items": [{}, {{"kind": "Service"}}]}}"#, pod("Pod"));
        check(&list, &["x.yaml:1 Pod /n spec c=p"], 1, &[]);
        let typed = |kind: &str, inside: &str| {
            format!(r#"{{"kind": "{kind}List", "items": [{{"metadata": {{"name": "n"}}, {inside}}}]}}"#)
        };
        let spec = format!(r#""spec": {SPEC}"#);
        check(&typed("Pod", &spec), &["x.yaml:1 Pod /n spec c=p"], 0, &[]);
        let spec = format!(r#""spec": {{{template}}}"#);
        check(&typed("Deployment", &spec), &["x.yaml:1 Deployment /n spec.template.spec c=p"], 0, &[]);
        check(&typed("Service", r#""spec": {}"#), &[], 1, &[]);
        check(r#"{"kind": "PodList", "items": []}"#, &[], 0, &[]);
    }

    #[test]
    fn documents_are_read_one_by_one_and_named_by_their_lines() {
        let pod = |name: &str| {
            format!("kind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers: [{{name: c}}]\n")
        };
        let text = format!("# all\n---\n---\n{}---\nkind: Service\n---\n{}", pod("one"), pod("two"));
        check(&text, &["x.yaml:4 Pod /one spec ", "x.yaml:11 Pod /two spec "], 1, &[]);
        let bad = "---\nkind: Pod\nspec: {nodeSelector: {gpu: yes}, containers: []}\n";
        let why = "reading x.yaml:6: reading where the pod can be: invalid type: boolean `true`";
        check(&format!("{}{bad}{}", pod("one"), "---\n{}"), &["x.yaml:1 Pod /one spec "], 1, &[why]);
        check("", &[], 0, &[]);
        check("just words", &[], 1, &[]);
    }

    #[test]
    fn annotations_of_the_template_count() {
        let annotation = "container.apparmor.security.beta.kubernetes.io/c: localhost/p";
        let template =
            format!("{{metadata: {{annotations: {{{annotation}}}}}, spec: {{containers: [{{name: c}}]}}}}");
        let text = format!("kind: Deployment\nspec: {{template: {template}}}\n");
        check(&text, &["x.yaml:1 Deployment / spec.template.spec c=p"], 0, &[]);
    }

    #[test]
    fn what_is_no_yaml_is_told_with_its_place() {
        let failures = read("kind: Pod\n  x: [\n").failures;
        assert!(
            failures[0].starts_with("reading x.yaml: ") && failures[0].contains("line 2"),
            "{failures:?}"
        );
        assert!(!failures[0].contains("helm"), "{failures:?}");
        let template =
            "kind: Pod\nmetadata:\n  name: {{ .Values.name }}\nspec: {{- toYaml .x | nindent 2 }}\n";
        let failures = read(template).failures;
        assert!(failures[0].contains("line 3") && failures[0].contains("helm template"), "{failures:?}");
        let twice = read("kind: Pod\nkind: Job\n").failures;
        assert!(twice[0].contains("duplicate") && twice[0].contains("kind"), "{twice:?}");
    }

    #[test]
    fn a_small_file_is_not_read_as_a_large_one() {
        let level = |(one, other): (char, char)| {
            let aliases = vec![format!("*{one}"); 9].join(",");
            format!("{other}: &{other} [{aliases}]\n")
        };
        let levels: String = ('a'..'i').zip('b'..='i').map(level).collect();
        let failures = read(&format!("kind: Pod\na: &a [x,x,x,x,x,x,x,x,x]\n{levels}")).failures;
        assert!(failures.len() == 1 && failures[0].contains("alias"), "{failures:?}");
    }

    #[test]
    fn of_a_directory_all_that_may_be_manifests_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let pod = |name: &str| {
            format!(
                "{{\n\t\"kind\": \"Pod\",\n\t\"metadata\": {{\"name\": \"{name}\"}},\n\t\"spec\": {SPEC}\n}}\n"
            )
        };
        for name in ["b.json", "a.yaml", "inner/c.yml", ".hidden/d.yaml", ".e.yaml", "notes.txt"] {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, pod(name)).unwrap();
        }
        fs::write(directory.path().join("bad.yaml"), "[").unwrap();
        let mut manifests = Manifests::default();
        manifests.read(directory.path());
        let names: Vec<&str> = manifests.workloads.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["a.yaml", "b.json", "inner/c.yml"]);
        assert_eq!(manifests.failures.len(), 1);
        manifests.read(&directory.path().join("gone.yaml"));
        manifests.read(&directory.path().join(".hidden/.."));
        assert_eq!((manifests.workloads.len(), manifests.failures.len()), (6, 3), "{:?}", manifests.failures);
        let empty = tempfile::tempdir().unwrap();
        manifests.read(empty.path());
        let last = manifests.failures.last().unwrap();
        assert!(last.ends_with("no file there ends with .yaml, .yml or .json"), "{last}");
    }
}
