//! The `CustomResourceDefinition`s of our objects, as they follow from their types and from what is said about
//! the fields of those.
//!
//! Invariant: the files below are this, and nothing else. Only the test below makes them, so nothing of it is
//! in the program.

use std::env;
use std::fs;
use std::path::Path;

use profiles::catalog::object::ProfileCatalog;
use profiles::report::Report;
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use super::{GROUP, VERSION, profile_catalog, report};

/// One of our objects. There is one for each Node, or one for the cluster.
struct Definition {
    file: &'static str,
    /// What the file is, in words, and in which file the types are.
    about: (&'static str, &'static str),
    kind: &'static str,
    plural: &'static str,
    short: &'static str,
    /// The columns of `kubectl get`: name, type, place.
    columns: &'static [(&'static str, &'static str, &'static str)],
    /// Those of them that are for `-o wide`.
    wide: &'static [&'static str],
    /// What others ask for, and what is observed, are written by different hands.
    has_status: bool,
    schema: fn() -> Value,
}

const DEFINITIONS: [Definition; 2] = [
    Definition {
        file: "manifests/base/node-profile-report.yaml",
        about: (
            "The state of each node: what it holds, what is wrong there, and since when. The agent of each Node writes one\n# \
             object. See docs/reports.md.",
            "profiles/src/report.rs",
        ),
        kind: report::KIND,
        plural: report::PLURAL,
        short: "npr",
        columns: &[
            ("Ready", "string", r#".status.conditions[?(@.type=="Ready")].status"#),
            ("Bundles", "integer", ".status.totals.bundles"),
            ("Profiles", "string", ".status.totals.profiles"),
            ("Problems", "integer", ".status.totals.problems"),
            ("Unresolved", "integer", ".status.totals.unresolved"),
            ("Retained", "integer", ".status.totals.retained"),
            ("AppArmor", "string", ".status.node.appArmor"),
            ("Agent", "string", ".status.agent.version"),
            ("Age", "date", ".metadata.creationTimestamp"),
        ],
        wide: &["Agent"],
        has_status: false,
        schema: || {
            json!({
                "type": "object",
                "description": "The state of a node, as its agent reports it.",
                "required": ["status"],
                "properties": {"status": schema::<Report>()},
            })
        },
    },
    Definition {
        file: "manifests/base/profile-catalog.yaml",
        about: (
            "The one object `pavise`: the profiles that bundles declare, and what an administrator requires of pods. Admission\n\
             # policies decide by it. The catalog writes `status`; the administrator writes `spec`.\n#",
            "profiles/src/catalog/object.rs",
        ),
        kind: profile_catalog::KIND,
        plural: profile_catalog::PLURAL,
        short: "pcat",
        columns: &[
            ("Seccomp", "integer", ".status.totals.seccomp"),
            ("AppArmor", "integer", ".status.totals.appArmor"),
            ("Omitted", "integer", ".status.totals.omitted"),
            ("Enforce", "string", ".spec.defaults.enforce"),
            ("Warn", "string", ".spec.defaults.warn"),
            ("Audit", "string", ".spec.defaults.audit"),
            ("Age", "date", ".metadata.creationTimestamp"),
        ],
        wide: &["Omitted"],
        has_status: true,
        schema: || {
            let mut schema = schema::<ProfileCatalog>().to_value();
            // Policies have no other as their parameter.
            schema["x-kubernetes-validations"] = json!([{
                "rule": "self.metadata.name == 'pavise'",
                "message": "there is one ProfileCatalog, with the name pavise",
            }]);
            schema
        },
    },
];

impl Definition {
    fn text(&self) -> String {
        let (about, types) = self.about;
        let head = format!(
            "# {about} It is made from the types in {types}:\n#   PAVISE_WRITE=1 cargo test -p pavise definition\n"
        );
        format!("{head}{}", serde_saphyr::to_string(&self.object()).unwrap())
    }

    fn object(&self) -> Value {
        let columns: Vec<Value> = self.columns.iter().map(|column| self.column(column)).collect();
        let mut version = json!({
            "name": VERSION,
            "served": true,
            "storage": true,
            "additionalPrinterColumns": columns,
            "schema": {"openAPIV3Schema": (self.schema)()},
        });
        if self.has_status {
            version["subresources"] = json!({"status": {}});
        }
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{}.{GROUP}", self.plural)},
            "spec": {
                "group": GROUP,
                "names": {
                    "kind": self.kind,
                    "listKind": format!("{}List", self.kind),
                    "plural": self.plural,
                    "singular": self.kind.to_lowercase(),
                    "shortNames": [self.short],
                },
                "scope": "Cluster",
                "versions": [version],
            },
        })
    }

    fn column(&self, (name, kind, path): &(&str, &str, &str)) -> Value {
        let mut column = json!({"name": name, "type": kind, "jsonPath": path});
        if self.wide.contains(name) {
            column["priority"] = json!(1);
        }
        column
    }
}

/// The schema of `T`, as Kubernetes wants schemas to be: without references, and with words for values.
fn schema<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
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
    for definition in DEFINITIONS {
        let file = definition.file;
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        let text = definition.text();
        if env::var_os("PAVISE_WRITE").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let there = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            there == text,
            "{file} is not what its types yield; see what has changed, and write it anew with: \
             PAVISE_WRITE=1 cargo test -p pavise definition"
        );
    }
}
