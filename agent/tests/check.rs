//! `pavise check` itself: what it prints and how it exits, without a cluster and with an API server that has
//! three nodes.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

#[path = "check/level.rs"]
mod level;

/// What comes of `pavise check` with this kubeconfig and text on standard input: the exit code, standard
/// output and standard error.
fn check(kubeconfig: &Path, arguments: &[&str], text: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pavise"));
    command.env_clear().env("KUBECONFIG", kubeconfig).current_dir("/").arg("check").args(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let [out, error] = [output.stdout, output.stderr].map(|words| String::from_utf8(words).unwrap());
    (output.status.code(), out, error)
}

/// The same without a cluster, where nothing is to be printed.
fn check_alone(arguments: &[&str], text: &str, code: i32, error: &str) {
    let (ended, out, said) = check(Path::new("/nowhere"), arguments, text);
    assert_eq!((ended, out.as_str()), (Some(code), ""), "{text}\n{said}");
    assert!(said.contains(error), "{said}");
}

/// An API server for as long as the test runs, which answers what is in `objects` by their paths: lists, by
/// their items, and single objects. It refuses all else. And a kubeconfig for it.
fn api_server(objects: Vec<(&'static str, Value)>) -> (TempDir, PathBuf) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for connection in listener.incoming() {
            serve(&connection.unwrap(), &objects);
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kubeconfig");
    let context =
        |name: &str, cluster: &str| json!({"name": name, "context": {"cluster": cluster, "user": "u"}});
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [context("here", "c"), context("broken", "none")],
        "current-context": "here",
    });
    fs::write(&path, kubeconfig.to_string()).unwrap();
    (directory, path)
}

/// Answers one request and closes the connection.
fn serve(mut connection: &TcpStream, objects: &[(&str, Value)]) {
    let mut lines = BufReader::new(connection).lines().map(Result::unwrap);
    let Some(request) = lines.next() else { return };
    lines.find(String::is_empty);
    let path = request.split([' ', '?']).nth(1).unwrap();
    let answer = match objects.iter().find(|(known, _)| *known == path) {
        Some((_, items)) if items.is_array() => {
            json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items})
        }
        Some((_, object)) => object.clone(),
        None => failure(403, "not for you"),
    };
    let status = answer["code"].as_u64().unwrap_or(200);
    let answer = answer.to_string();
    let head = format!(
        "HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        answer.len()
    );
    connection.write_all((head + &answer).as_bytes()).unwrap();
}

/// What an API server says that answers no.
fn failure(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "status": "Failure", "message": message, "code": code})
}

fn node(name: &str, labels: &[&str]) -> Value {
    let labels: serde_json::Map<String, Value> =
        labels.iter().map(|label| ((*label).to_owned(), json!("true"))).collect();
    json!({"metadata": {"name": name, "labels": labels}})
}

/// Three nodes, of which two have AppArmor, and one bundle.
fn objects() -> Vec<(&'static str, Value)> {
    let everywhere = "apparmor.pavise.dev/everywhere";
    let nodes = json!([
        node("aavm1", &["apparmor.pavise.dev/deny-write", everywhere]),
        node("aavm2", &["apparmor.pavise.dev/deny-write", "apparmor.pavise.dev/second", everywhere]),
        node("node1", &[everywhere]),
    ]);
    let bundle = json!({
        "metadata": {"namespace": "pavise-profiles", "name": "web", "labels": {"pavise.dev/profiles": "apparmor"}},
        "data": {"text": "profile deny-write {\n}\nprofile second {\n}\nprofile everywhere {\n}\n"},
    });
    let running = |name: &str, node: &str| {
        let mut pod = pod(name, &["deny-write"]);
        pod["spec"]["nodeName"] = json!(node);
        pod["metadata"]["namespace"] = json!("shop");
        pod
    };
    let plain = json!({"metadata": {"name": "plain", "namespace": "shop"}, "spec": {"containers": []}});
    vec![
        ("/api/v1/nodes", nodes),
        ("/api/v1/namespaces/pavise-profiles/configmaps", json!([bundle])),
        ("/api/v1/namespaces/shop/pods", json!([running("good", "aavm1"), running("bad", "node1"), plain])),
    ]
}

/// A pod with a container for each of these AppArmor profiles.
fn pod(name: &str, references: &[&str]) -> Value {
    let container = |(index, reference): (usize, &&str)| {
        let profile = json!({"type": "Localhost", "localhostProfile": reference});
        json!({"name": format!("c{index}"), "securityContext": {"appArmorProfile": profile}})
    };
    let containers: Vec<Value> = references.iter().enumerate().map(container).collect();
    json!({"kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers}})
}

/// Claims what is printed of `text`, and how it ends, where the API server has [`objects`].
fn check_with(arguments: &[&str], text: &str, code: i32, expected: &str) {
    let (_directory, kubeconfig) = api_server(objects());
    let (ended, out, error) = check(&kubeconfig, arguments, text);
    assert_eq!(out, expected, "{error}");
    assert_eq!((ended, error.as_str()), (Some(code), ""), "{out}");
}

#[test]
fn a_reference_that_resolves_wherever_its_pod_can_be_is_fine() {
    let text = pod("web", &["everywhere"]).to_string();
    let expected = "<stdin>:1: pod/web
  container c0  apparmor  everywhere  resolves on all 3 nodes
1 reference: 1 resolved
";
    check_with(&["-f", "-"], &text, 0, expected);
    let mut placed = pod("web", &["deny-write"]);
    placed["spec"]["nodeSelector"] = json!({"apparmor.pavise.dev/deny-write": "true"});
    let expected = "<stdin>:1: pod/web
  container c0  apparmor  deny-write  resolves on all 2 nodes
1 reference: 1 resolved (1 of other kinds)
";
    check_with(&["-f", "-"], &format!("{placed}\n---\nkind: Service\n"), 0, expected);
}

#[test]
fn what_resolves_on_some_nodes_is_told_with_the_node_selector_to_add() {
    let spec = &pod("", &["deny-write", "second", "everywhere"])["spec"];
    let deployment = json!({
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"template": {"spec": spec}},
    });
    let why = "pavise-profiles/web declares it, and it is not loaded there: the node may lack AppArmor, or an agent";
    let expected = format!(
        "<stdin>:1: deployment/web (namespace shop)
  container c0  apparmor  deny-write  resolves on 2 of 3 nodes, not on node1; {why}
  container c1  apparmor  second      resolves on 1 of 3 nodes: aavm2; {why}
  container c2  apparmor  everywhere  resolves on all 3 nodes
  add to spec.template.spec, for aavm2:
    nodeSelector:
      apparmor.pavise.dev/deny-write: \"true\"
      apparmor.pavise.dev/second: \"true\"
3 references: 1 resolved, 2 partly
"
    );
    check_with(&["-f", "-"], &deployment.to_string(), 1, &expected);
}

#[test]
fn what_is_on_no_node_is_told_with_what_was_probably_meant() {
    let text = pod("web", &["deny-wrte", "\u{1b}[2J"]).to_string();
    let (_directory, kubeconfig) = api_server(objects());
    let (code, out, error) = check(&kubeconfig, &["-f", "-"], &text);
    let expected =
        "apparmor  deny-wrte  resolves on no node: no bundle declares it; did you mean deny-write?\n";
    assert!(out.contains(expected) && !out.contains('\u{1b}'), "{out}");
    assert!(out.ends_with("have no label, and count as missing.\n"), "{out}");
    assert_eq!((code, error.as_str()), (Some(1), ""));
}

#[test]
fn pods_of_the_cluster_are_checked_on_the_nodes_that_they_are_on() {
    let why = "pavise-profiles/web declares it, and it is not loaded there: the node may lack AppArmor, or an agent; \
               it is where the pod can't be: aavm1, aavm2";
    let expected = format!(
        "pod/good (namespace shop) on aavm1
  container c0  apparmor  deny-write  resolves on aavm1
pod/bad (namespace shop) on node1
  container c0  apparmor  deny-write  does not resolve on node1: {why}
2 references: 1 resolved, 1 missing (1 without references)
Profiles that something else than Pavise put on nodes have no label, and count as missing.
"
    );
    check_with(&["--namespace", "shop"], "", 1, &expected);
}

#[test]
fn a_script_gets_the_same_as_json() {
    let (_directory, kubeconfig) = api_server(objects());
    let (code, out, _) = check(&kubeconfig, &["-f", "-", "-o", "json"], &pod("web", &["second"]).to_string());
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, Some(1));
    let expected = json!({"resolved": 0, "ignored": 0, "partly": 1, "missing": 0, "unknown": 0});
    assert_eq!(answer["references"], expected);
    let workload = &answer["workloads"][0];
    assert_eq!(workload["nodeSelector"], json!({"apparmor.pavise.dev/second": "true"}));
    let reference = &workload["references"][0];
    assert_eq!((&reference["verdict"], &reference["nodes"]), (&json!("partly"), &json!(["aavm2"])));
}

#[test]
fn who_may_read_no_bundles_gets_an_answer_by_labels() {
    let without_bundles = objects().into_iter().filter(|(path, _)| !path.ends_with("configmaps")).collect();
    let (_directory, kubeconfig) = api_server(without_bundles);
    let (code, out, error) = check(&kubeconfig, &["-f", "-"], &pod("web", &["everywhere"]).to_string());
    assert_eq!(code, Some(0), "{out}{error}");
    let expected = "pavise: the answer is by labels alone for the bundles of pavise-profiles: asking the API server to \
                    list configmaps: not for you (403); let this user list configmaps\n";
    assert_eq!(error, expected);
}

#[test]
fn who_may_not_list_nodes_gets_no_answer() {
    let (_directory, kubeconfig) = api_server(Vec::new());
    let (code, out, error) = check(&kubeconfig, &["-f", "-"], &pod("web", &["everywhere"]).to_string());
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(error.ends_with("not for you (403); let this user list nodes\n"), "{error}");
}

#[test]
fn a_context_that_is_not_there_is_named() {
    let (_directory, kubeconfig) = api_server(objects());
    let text = pod("web", &["everywhere"]).to_string();
    let (code, _, error) = check(&kubeconfig, &["-f", "-", "--context", "gone"], &text);
    assert!(code == Some(1) && error.contains("finding the context gone"), "{error}");
    assert_eq!(check(&kubeconfig, &["-f", "-", "--context", "here"], &text).0, Some(0));
}

#[test]
fn without_a_cluster_it_is_said_that_there_is_none() {
    let text = pod("web", &["p"]).to_string();
    check_alone(&["-f", "-"], &text, 1, "finding the API server by KUBECONFIG");
    let directory = tempfile::tempdir().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    let content = json!({
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{closed}")}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
        "current-context": "c",
    });
    fs::write(&kubeconfig, content.to_string()).unwrap();
    let (code, _, error) = check(&kubeconfig, &["-f", "-"], &text);
    assert!(code == Some(1) && error.contains("is this the right cluster, and does it run?"), "{error}");
}

#[test]
fn what_refers_to_nothing_needs_no_cluster() {
    let (code, out, error) = check(Path::new("/nowhere"), &["-f", "-"], &pod("web", &[]).to_string());
    assert_eq!((code, out.as_str()), (Some(0), "0 references (1 without references)\n"), "{error}");
}

#[test]
fn what_can_not_be_read_is_a_failure_and_keeps_nothing_else_from_being_checked() {
    check_alone(&["-f", "-"], "", 1, "looking for pods in -: there are no objects");
    check_alone(&["-f", "-"], "kind: Service\n", 1, "looking for pods in -: there are none in 1 object");
    check_alone(&["-f", "/nowhere/x.yaml"], "", 1, "reading /nowhere/x.yaml: No such file");
    check_alone(&["-f", "-"], "kind: {{ .kind }}\n", 1, "it may be a template that is not rendered");
    let (_directory, kubeconfig) = api_server(objects());
    let text = pod("web", &["everywhere"]).to_string();
    let (code, out, error) = check(&kubeconfig, &["-f", "-", "-f", "/nowhere/x.yaml"], &text);
    assert!(code == Some(1) && out.ends_with("1 reference: 1 resolved\n"), "{out}{error}");
    assert!(error.contains("reading /nowhere/x.yaml"), "{error}");
}

#[test]
fn a_wrong_command_line_is_exit_code_two() {
    check_alone(&[], "", 2, "the following required arguments were not provided");
    check_alone(&["-f", "-", "-A"], "", 2, "cannot be used with");
    check_alone(&["-A", "--bundle-namespace", "Not_Valid"], "", 2, "can't be a namespace");
}
