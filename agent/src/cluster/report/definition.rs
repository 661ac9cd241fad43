//! The `CustomResourceDefinition` of reports, as it follows from [`Report`] and what is said about its
//! fields.
//!
//! Invariant: `manifests/base/node-profile-report.yaml` is this, and nothing else. Only the test below makes
//! it, so nothing of it is in the program.

use std::env;
use std::fs;
use std::path::Path;

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};

use super::*;

const FILE: &str = "manifests/base/node-profile-report.yaml";
const HEAD: &str = "\
# What each node holds, what is wrong there and since when: one object for each Node, which its agent writes. See
# docs/reports.md. It is made from the types in profiles/src/report.rs:
#   PAVISE_WRITE=1 cargo test -p pavise definition
";

/// The columns of `kubectl get`: name, type, place. The last but one is for `-o wide`.
const COLUMNS: [(&str, &str, &str); 9] = [
    ("Ready", "string", r#".status.conditions[?(@.type=="Ready")].status"#),
    ("Bundles", "integer", ".status.totals.bundles"),
    ("Profiles", "string", ".status.totals.profiles"),
    ("Problems", "integer", ".status.totals.problems"),
    ("Unresolved", "integer", ".status.totals.unresolved"),
    ("Retained", "integer", ".status.totals.retained"),
    ("AppArmor", "string", ".status.node.appArmor"),
    ("Agent", "string", ".status.agent.version"),
    ("Age", "date", ".metadata.creationTimestamp"),
];

fn definition() -> Value {
    let columns = COLUMNS.map(|(name, kind, path)| match name {
        "Agent" => json!({"name": name, "type": kind, "jsonPath": path, "priority": 1}),
        _ => json!({"name": name, "type": kind, "jsonPath": path}),
    });
    let schema = json!({
        "type": "object",
        "description": "What the agent of a node says about it.",
        "required": ["status"],
        "properties": {"status": status()},
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{PLURAL}.{GROUP}")},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": format!("{KIND}List"),
                "plural": PLURAL,
                "singular": KIND.to_lowercase(),
                "shortNames": ["npr"],
            },
            "scope": "Cluster",
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "additionalPrinterColumns": columns,
                "schema": {"openAPIV3Schema": schema},
            }],
        },
    })
}

/// The schema of [`Report`], as Kubernetes wants schemas to be: without references, and with words for
/// values.
fn status() -> Schema {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<Report>();
    RecursiveTransform(plain).transform(&mut schema);
    schema
}

fn plain(schema: &mut Schema) {
    // A name for programs: Kubernetes has none.
    schema.remove("title");
    // A default would be filled in by the API server.
    schema.remove("default");
    // Formats of Rust's own.
    if schema.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
        schema.insert("format".to_owned(), json!("int64"));
    }
    // Of an enumeration, each word has a description of its own, which a structural schema has no place for.
    if let Some(Value::Array(words)) = schema.remove("oneOf") {
        let words: Vec<Value> =
            words.iter().flat_map(|word| word["enum"].as_array().cloned().unwrap_or_default()).collect();
        schema.insert("type".to_owned(), json!("string"));
        schema.insert("enum".to_owned(), words.into());
    }
    // Paragraphs are for the reader of the code.
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.replace('\n', " ");
    }
}

#[test]
fn the_definition_in_the_manifests_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(FILE);
    let text = format!("{HEAD}{}", serde_saphyr::to_string(&definition()).unwrap());
    if env::var_os("PAVISE_WRITE").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == text,
        "{FILE} is not what the types of reports yield; see what has changed, and write it anew with: \
         PAVISE_WRITE=1 cargo test -p pavise definition"
    );
}
